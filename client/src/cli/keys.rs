//! `keys`: make, list, revoke and rotate keys. The text of a new key goes to stdout, this once.

use pointsman_client::v1;

use super::args::{CreateKeyArgs, KeysCommand};
use super::exit::Exit;
use super::input::flag;
use super::parse;
use super::session::Session;
use super::tables::{Look, or_none, time, word};

/// Keys in one call, at most.
const PAGE_MAX: u32 = 1_000;

/// Keys: create, list, revoke, rotate.
pub(crate) async fn keys(session: &Session, command: KeysCommand) -> anyhow::Result<Exit> {
    let client = &session.client;
    match command {
        KeysCommand::Create(args) => {
            let response = session.call("creating", client.create_key(wanted(args))).await?;
            session.reply(&response, |look, response| shown(look, response.key.as_ref(), &response.text))?;
        }
        KeysCommand::List { tenant } => {
            let response = list(session, tenant).await?;
            session.reply(&response, |look, response| text(look, &response.keys))?;
        }
        KeysCommand::Revoke { id } => {
            let response = session.call("revoking", client.revoke_key(v1::RevokeKeyRequest { id })).await?;
            session.reply(&response, |look, response| text(look, response.key.as_slice()))?;
        }
        KeysCommand::Rotate { id, grace, expires_at } => {
            let grace = grace.map(parse::wire_duration).transpose().map_err(|why| flag("--grace", why))?;
            let request = v1::RotateKeyRequest { id, grace, expires_at };
            let response = session.call("rotating", client.rotate_key(request)).await?;
            session.reply(&response, |look, response| {
                let old = response.previous.as_ref();
                let both: Vec<v1::Key> = response.key.iter().chain(old).cloned().collect();
                format!("{}\n{}", response.text, text(look, &both))
            })?;
        }
    }
    Ok(Exit::Ok)
}

/// All keys, page by page.
async fn list(session: &Session, tenant: String) -> anyhow::Result<v1::ListKeysResponse> {
    let mut all = v1::ListKeysResponse::default();
    let mut request = v1::ListKeysRequest { tenant, page_size: PAGE_MAX, page_token: String::new() };
    loop {
        let page = session.call("reading", session.client.list_keys(request.clone())).await?;
        all.keys.extend(page.keys);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

fn wanted(args: CreateKeyArgs) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        tenant: args.tenant,
        name: args.name,
        scopes: args.scopes.into_iter().map(|scope| scope.wire().into()).collect(),
        expires_at: args.expires_at,
        limits: Some(v1::KeyLimits {
            requests_per_minute: args.requests_per_minute,
            tokens_per_minute: args.tokens_per_minute,
            spend_usd_micros_per_minute: args.spend_usd_micros_per_minute,
        }),
    }
}

/// The text alone on the first line, so that a script can take it.
fn shown(look: &Look, key: Option<&v1::Key>, secret: &str) -> String {
    format!("{secret}\n{}", text(look, key.map_or(&[], std::slice::from_ref)))
}

fn text(look: &Look, keys: &[v1::Key]) -> String {
    let rows = keys.iter().map(|key| {
        let scopes: Vec<String> = key.scopes().map(|scope| word(scope.as_str_name(), "KEY_SCOPE_")).collect();
        let limits = key.limits.unwrap_or_default();
        let limit = |limit: Option<u64>| limit.map_or_else(|| or_none(""), |limit| limit.to_string());
        let spend = limits.spend_usd_micros_per_minute.and_then(|micros| u64::try_from(micros).ok());
        vec![
            key.id.clone(),
            key.tenant.clone(),
            or_none(&key.name),
            scopes.join(","),
            word(key.state().as_str_name(), "KEY_STATE_"),
            time(key.created_at.as_ref()),
            time(key.expires_at.as_ref()),
            or_none(&key.rotated_from),
            limit(limits.requests_per_minute),
            limit(limits.tokens_per_minute),
            limit(spend),
        ]
    });
    look.table(
        &[
            "key",
            "tenant",
            "name",
            "scopes",
            "state",
            "made",
            "ends",
            "follows",
            ">requests / min",
            ">tokens / min",
            ">micro-dollars / min",
        ],
        rows.collect(),
    )
}

//! `policies`: list, show, install.

use pointsman_client::v1;

use super::args::PoliciesCommand;
use super::exit::Exit;
use super::input;
use super::learn::{evaluation, training};
use super::session::Session;
use super::tables::{Look, bytes, estimate, time, word, yes};

/// Policies: list, show, install.
pub(crate) async fn policies(session: &Session, command: PoliciesCommand) -> anyhow::Result<Exit> {
    match command {
        PoliciesCommand::List => {
            let call = session.client.list_policies(v1::ListPoliciesRequest {});
            let response = session.call("reading", call).await?;
            session.reply(&response, list_text)?;
        }
        PoliciesCommand::Show { version } => {
            let request = v1::GetPolicyRequest { version: version.unwrap_or_default() };
            let response = session.call("reading", session.client.get_policy(request)).await?;
            session.reply(&response.policy.unwrap_or_default(), text)?;
        }
        PoliciesCommand::Install { file } => {
            let artifact = input::bytes(&file)?;
            let response = session.call("installing", session.client.install_policy(artifact)).await?;
            session.reply(&response, |look, response| {
                let policy = response.policy.clone().unwrap_or_default();
                let known = if response.repeated_install { "this very artifact was here already\n" } else { "" };
                format!("{known}{}", self::text(look, &policy))
            })?;
        }
    }
    Ok(Exit::Ok)
}

fn list_text(look: &Look, response: &v1::ListPoliciesResponse) -> String {
    let rows = response.policies.iter().map(|policy| {
        let evaluation = policy.evaluation.as_ref();
        vec![
            policy.version.clone(),
            word(policy.kind().as_str_name(), "POLICY_KIND_"),
            word(policy.state().as_str_name(), "POLICY_STATE_"),
            time(policy.created_at.as_ref()),
            policy.trained_on_rows.to_string(),
            policy.updates.to_string(),
            estimate(evaluation.and_then(|evaluation| evaluation.doubly_robust.as_ref())),
            evaluation::gate_word(evaluation),
        ]
    });
    look.table(&["policy", "kind", "state", "made", ">trained on", ">updates", ">value", "gate"], rows.collect())
}

/// One policy with all that is known of it.
pub(crate) fn text(look: &Look, policy: &v1::Policy) -> String {
    let or_nothing = |number: u64| if number == 0 { String::new() } else { number.to_string() };
    let mut text = look.pairs(&[
        ("policy", policy.version.clone()),
        ("kind", word(policy.kind().as_str_name(), "POLICY_KIND_")),
        ("state", word(policy.state().as_str_name(), "POLICY_STATE_")),
        ("before it", policy.predecessor.clone()),
        ("made", time(policy.created_at.as_ref())),
        ("artifact", if policy.artifact_bytes == 0 { String::new() } else { bytes(policy.artifact_bytes) }),
        ("trained on", or_nothing(policy.trained_on_rows)),
        ("trained on feedback up to", or_nothing(policy.trained_through)),
        ("updates", policy.updates.to_string()),
        ("applied feedback up to", policy.feedback_mark.to_string()),
        ("applied traces up to", policy.trace_mark.to_string()),
        ("feature schema", format!("{:016x}", policy.schema_hash)),
        ("evaluated", yes(policy.evaluation.is_some())),
    ]);
    if !policy.settings.is_empty() {
        let rows = policy.settings.iter();
        let rows = rows.map(|(name, value)| vec![name.clone(), value.clone()]);
        text += &look.table(&["setting", "value"], rows.collect());
    }
    if let Some(report) = &policy.training_report {
        text += &format!("\nIts training\n{}", training::text(look, report));
    }
    if let Some(found) = &policy.evaluation {
        text += &format!("\nIts last evaluation\n{}", evaluation::text(look, std::slice::from_ref(found)));
    }
    text
}

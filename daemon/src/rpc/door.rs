//! The door: who calls is known before anything of a request is read, and travels with it from there on.
//!
//! A layer around all services looks at the path and the `authorization` header alone. It refuses what has
//! no key that lets it in (UNAUTHENTICATED, one reason and one message, whatever the cause) and what lacks
//! the scope ([`super::permits`]); to everything else it adds the [`Caller`]. A handler takes it by
//! `door::caller`, which refuses a request that came by no door.
//!
//! A stream is one request: whoever was let in may end it, although its key was revoked meanwhile.
//!
//! It must never log a header, and never wait: keys are in memory.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use pointsman_proto::v1;
use pointsman_router::clock::Clock;
use pointsman_router::request::{RouteRequest, TENANT_TAG};
use tonic::codegen::http::{self, HeaderMap, header::AUTHORIZATION};
use tonic::{Request, Status};
use tower::{Layer, Service};

use super::permits::{Needs, needs};
use super::status::{Reason, Refusal};
use crate::keyring::Keyring;
use crate::keys::Caller;

/// Longest header that is looked at, in bytes: a key has 63.
const HEADER_BYTES_MAX: usize = 128;

/// Lets callers in.
#[derive(Clone)]
pub struct Door {
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// Whether a key is demanded; without, whoever connects may do everything.
    pub demands_keys: bool,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("demands_keys", &self.demands_keys).finish_non_exhaustive()
    }
}

impl Door {
    /// Who calls this path with these headers.
    ///
    /// # Errors
    /// [`Reason::Unauthenticated`], [`Reason::ScopeMissing`].
    pub fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Option<Caller>, Refusal> {
        if !self.demands_keys {
            return Ok(Some(Caller::keyless()));
        }
        let needs = needs(path);
        if needs == Needs::Nothing {
            return Ok(None);
        }
        let caller = self.keyring.admit(bearer(headers), self.clock.now()).ok_or_else(unauthenticated)?;
        match needs {
            Needs::Nothing | Needs::AnyKey => Ok(Some(caller)),
            Needs::Scope(scope) if caller.may(scope) => Ok(Some(caller)),
            Needs::Scope(scope) => {
                let message =
                    format!("the key `{}` lacks the scope `{scope}`, use one that has it", caller.actor());
                Err(Refusal::new(Reason::ScopeMissing, message).with("scope", scope.as_str()))
            }
            Needs::Unknown => {
                Err(Refusal::new(Reason::ScopeMissing, "there is no such rpc, or no key may call it"))
            }
        }
    }
}

/// The text of the one key that was sent.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (sent.next(), sent.next()) else { return None };
    let header = header.to_str().ok().filter(|header| header.len() <= HEADER_BYTES_MAX)?;
    let (scheme, text) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(text)
}

fn unauthenticated() -> Refusal {
    let message = "this daemon demands a key that is valid, send one as `authorization: Bearer pm_...`";
    Refusal::new(Reason::Unauthenticated, message)
}

/// Who calls.
///
/// # Errors
/// [`Reason::Unauthenticated`] for a request that came by no door.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Refusal> {
    request.extensions().get::<Caller>().cloned().ok_or_else(unauthenticated)
}

/// The tenant of a request is that of its key: sets the tag, and refuses another one.
///
/// # Errors
/// [`Reason::InvalidArgument`] for a request that names another tenant.
pub(super) fn claim(spec: &mut v1::RequestSpec, caller: &Caller) -> Result<(), Refusal> {
    let Some(tenant) = caller.tenant() else { return Ok(()) };
    match spec.tags.get(TENANT_TAG) {
        Some(named) if named != tenant => {
            let problem = "names another tenant than the key has, leave it out";
            Err(Refusal::field("request.tags.tenant", problem))
        }
        Some(_) => Ok(()),
        None => {
            spec.tags.insert(TENANT_TAG.to_owned(), tenant.to_owned());
            Ok(())
        }
    }
}

/// The core's request with the key that it came with.
pub(super) fn keyed(raw: RouteRequest, caller: &Caller) -> RouteRequest {
    RouteRequest { key: caller.key().cloned(), ..raw }
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { door: self.clone(), inner }
    }
}

/// Services behind a door.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    door: Door,
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        match self.door.admit(request.uri().path(), request.headers()) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Left(self.inner.call(request))
            }
            Err(refusal) => {
                tracing::debug!(
                    path = request.uri().path(),
                    reason = refusal.reason().name(),
                    "refused at the door"
                );
                Either::Right(ready(Ok(Status::from(refusal).into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(sent: &[&str]) -> HeaderMap {
        sent.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn one_bearer_is_looked_at() {
        let check =
            |sent: &[&str], expected: Option<&str>| assert_eq!(bearer(&headers(sent)), expected, "{sent:?}");
        check(&["Bearer pm_a.b"], Some("pm_a.b"));
        check(&["bearer x"], Some("x"));
        check(&["Bearer  x"], Some(" x"));
        check(&[], None);
        check(&["Bearer"], None);
        check(&["Basic x"], None);
        check(&["Bearer x", "Bearer x"], None);
        check(&[&format!("Bearer {}", "x".repeat(HEADER_BYTES_MAX))], None);
        check(&["Bearer \u{e9}"], None);
    }

    #[test]
    fn who_came_by_no_door_is_refused() {
        let mut request = Request::new(());
        assert_eq!(caller(&request).unwrap_err().reason(), Reason::Unauthenticated);
        request.extensions_mut().insert(Caller::keyless());
        assert_eq!(caller(&request).unwrap(), Caller::keyless());
    }

    #[test]
    fn the_tenant_is_that_of_the_key() {
        let mut spec = v1::RequestSpec::default();
        claim(&mut spec, &Caller::keyless()).unwrap();
        assert!(spec.tags.is_empty());
        spec.tags.insert(TENANT_TAG.to_owned(), "b".to_owned());
        claim(&mut spec, &Caller::keyless()).unwrap();
        assert_eq!(spec.tags[TENANT_TAG], "b");
    }
}

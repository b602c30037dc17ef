//! The key that a client shows at the door, as the `authorization` header of every call.
//!
//! It must never be shown otherwise: it has no way of being printed, and the header that carries it is marked as
//! sensitive, so that no layer below logs it either.

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::error::ClientError;

/// A key of the daemon, `pm_<id>.<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(MetadataValue<Ascii>);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl ApiKey {
    /// Takes the text of a key; white space around it is cut off. Whether it is a key is the daemon's to say.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for a text that no header can carry; it is not repeated.
    pub fn new(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ClientError::key("is empty or has characters that no key has, give the text `pm_...`"));
        }
        let header = format!("Bearer {text}").parse::<MetadataValue<Ascii>>();
        let mut header = header.map_err(|_| ClientError::key("cannot be sent, give the text `pm_...`"))?;
        header.set_sensitive(true);
        Ok(Self(header))
    }
}

/// Adds the key to every call.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(pub(crate) Option<ApiKey>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(ApiKey(header)) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_and_not_shown() {
        let key = ApiKey::new(" pm_0123456789abcdef.hidden\n").expect("is a key");
        assert_eq!(format!("{key:?}"), "[secret]");
        let mut bearer = Bearer(Some(key));
        assert!(!format!("{bearer:?}").contains("hidden"));
        let request = bearer.call(Request::new(())).expect("is let through");
        let header = request.metadata().get("authorization").expect("is there");
        assert_eq!(header.to_str().ok(), Some("Bearer pm_0123456789abcdef.hidden"));
        assert!(!format!("{request:?}").contains("hidden"));
        let without = Bearer(None).call(Request::new(())).expect("is let through");
        assert!(without.metadata().get("authorization").is_none());
        for bad in ["", "  ", "two hidden", "hidden\u{e9}", "hid\nden"] {
            let error = ApiKey::new(bad).expect_err("is no key");
            assert!(matches!(&error, ClientError::Invalid(fault) if fault.violations[0].field == "key"));
            assert!(!format!("{error} {error:?}").contains("hid"));
        }
    }
}

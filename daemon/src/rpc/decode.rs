//! Messages that cannot be decoded are the caller's fault, and answered as such.
//!
//! tonic answers INTERNAL when the bytes of a message are no message, above all where a text is not
//! UTF-8. This layer turns that one answer into INVALID_ARGUMENT with the field's name, as far as the
//! decoder knew it. It must never touch any other answer.

use pointsman_router::check::{BadRequest, Problem};
use tonic::codegen::http;
use tonic::{Code, Status};

use super::status::Refusal;

/// How prost begins what it says of such a message.
const DECODER: &str = "failed to decode Protobuf message";

/// Replaces the answer to a message that cannot be decoded.
pub(crate) fn answer<B: Default>(response: http::Response<B>) -> http::Response<B> {
    match Status::from_header_map(response.headers()) {
        Some(status) if is_undecoded(&status) => fault(&status).into_http(),
        Some(_) | None => response,
    }
}

/// The same for an item of a stream.
pub(crate) fn item(status: Status) -> Status {
    if is_undecoded(&status) { fault(&status) } else { status }
}

/// How tonic begins what it says of a message above the limit.
const TOO_LARGE: &str = "Error, decoded message length too large";

fn is_undecoded(status: &Status) -> bool {
    (status.code() == Code::Internal && status.message().starts_with(DECODER)) || is_too_large(status)
}

fn is_too_large(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().starts_with(TOO_LARGE)
}

fn fault(status: &Status) -> Status {
    if is_too_large(status) {
        let limit = status.message().get(TOO_LARGE.len()..).unwrap_or_default().trim_start_matches([':', ' ']);
        return Refusal::from(BadRequest::of("message", Problem::malformed(format!("is too large: {limit}"))))
            .into();
    }
    // "failed to decode Protobuf message: RequestSpec.prompt: RouteRequest.request: invalid string value: ...":
    // the path from the inside out, then what is wrong.
    let told = status.message().get(DECODER.len()..).unwrap_or_default().trim_start_matches(": ");
    let parts: Vec<&str> = told.split(": ").collect();
    let is_field = |part: &&&str| part.contains('.') && !part.contains(' ');
    let fields: Vec<&str> = parts
        .iter()
        .take_while(is_field)
        .filter_map(|part| part.split_once('.'))
        .map(|(_, field)| field)
        .collect();
    let problem = parts.iter().skip(fields.len()).copied().collect::<Vec<_>>().join(": ");
    let path = fields.into_iter().rev().collect::<Vec<_>>().join(".");
    let field = if path.is_empty() { "message".to_owned() } else { path };
    Refusal::from(BadRequest::of(field, Problem::malformed(format!("cannot be read: {problem}")))).into()
}

#[cfg(test)]
mod tests {
    use pointsman_proto::v1;
    use prost::Message as _;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn bad_utf8_is_told_with_its_field() {
        // Field 1 (request), one byte of field 1 (prompt) that is no UTF-8.
        let bytes = [0x0a, 0x03, 0x0a, 0x01, 0xff];
        let error = v1::RouteRequest::decode(bytes.as_slice()).unwrap_err();
        let status = item(Status::internal(error.to_string()));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_error_details().bad_request().unwrap().field_violations[0].field, "request.prompt");
        let other = item(Status::internal("another fault"));
        assert_eq!((other.code(), other.message()), (Code::Internal, "another fault"));
    }
}

//! Every reply ends with its caller's deadline, a stream in the middle too: a layer around all services.
//!
//! Handlers end their own work a moment earlier and say what came of it ([`super::deadline`]); this is for what
//! they leave: calls that read a store for long, and streams whose events would go on. The end is
//! DEADLINE_EXCEEDED, never CANCELLED, and what still runs for the caller is dropped with it. A request without a
//! deadline passes untouched.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};

use super::deadline::{self, expired};

/// A service whose replies end in time.
#[derive(Debug, Clone)]
pub(crate) struct InTime<S>(S);

impl<S> InTime<S> {
    /// Around this service.
    pub(crate) fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S> Service<http::Request<Body>> for InTime<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let deadline = match deadline::of_headers(request.headers()) {
            Ok(deadline) => deadline,
            Err(refusal) => return Box::pin(std::future::ready(Ok(Status::from(refusal).into_http()))),
        };
        let reply = self.0.call(request);
        let Some(left) = deadline else { return Box::pin(reply) };
        let ends = Instant::now() + left;
        Box::pin(async move {
            match timeout_at(ends, reply).await {
                Ok(reply) => reply.map(|reply| reply.map(|body| Body::new(Timed::new(body, ends)))),
                Err(_) => Ok(Status::from(expired()).into_http()),
            }
        })
    }
}

/// A body that ends in time.
struct Timed {
    /// `None` once it was ended.
    body: Option<Body>,
    ends: Pin<Box<Sleep>>,
}

impl Timed {
    fn new(body: Body, ends: Instant) -> Self {
        Self { body: Some(body), ends: Box::pin(sleep_until(ends)) }
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.ends.as_mut().poll(cx));
        // What sends the events goes with the body.
        self.body = None;
        let mut trailers = http::HeaderMap::new();
        let status = Status::from(expired());
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    /// Replies after a while, then with an event each second for ever.
    #[derive(Clone)]
    struct Slow(Duration);

    impl Service<http::Request<Body>> for Slow {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            let after = self.0;
            Box::pin(async move {
                tokio::time::sleep(after).await;
                let events = futures_util::stream::unfold((), |()| async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Some((Ok::<_, Status>(Frame::data(Bytes::from_static(b"event"))), ()))
                });
                Ok(http::Response::new(Body::new(StreamBody::new(Box::pin(events)))))
            })
        }
    }

    /// Events and the status of a call, and how long it took.
    async fn call(after: Duration, timeout: &str) -> (usize, Option<Code>, Duration) {
        let began = Instant::now();
        let mut request = http::Request::new(Body::empty());
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let Ok(reply) = InTime::new(Slow(after)).call(request).await;
        if let Some(status) = Status::from_header_map(reply.headers()) {
            return (0, Some(status.code()), began.elapsed());
        }
        let (mut body, mut events) = (reply.into_body(), 0);
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_trailers() {
                Ok(trailers) => {
                    return (events, Status::from_header_map(&trailers).map(|s| s.code()), began.elapsed());
                }
                Err(_) => events += 1,
            }
        }
        (events, None, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_deadline() {
        let found = call(Duration::ZERO, "3500m").await;
        assert_eq!(found, (3, Some(Code::DeadlineExceeded), Duration::from_millis(3_500)));
        let found = call(Duration::from_secs(60), "1S").await;
        assert_eq!(found, (0, Some(Code::DeadlineExceeded), Duration::from_secs(1)));
        let found = call(Duration::ZERO, "soon").await;
        assert_eq!((found.0, found.1), (0, Some(Code::InvalidArgument)));
    }
}

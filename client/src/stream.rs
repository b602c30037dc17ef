//! The replies of a stream, one after the other.
//!
//! It exists so that callers see [`ClientError`] and the deadline holds to the end of the stream: the transport itself
//! stops watching it once the first header is in. It must never swallow an error; after one, the stream is over.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Streaming;

use crate::error::ClientError;

/// A stream of replies. Dropping it ends the call.
#[derive(Debug)]
pub struct Replies<T> {
    inner: Streaming<T>,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<T> Replies<T> {
    pub(crate) fn new(inner: Streaming<T>, deadline: Option<Instant>) -> Self {
        Self { inner, deadline: deadline.map(|at| Box::pin(sleep_until(at))), ended: false }
    }

    /// The next reply; `None` after the last.
    ///
    /// # Errors
    /// What the daemon ended the stream with, or [`ClientError::Deadline`] when the time of the call is over.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }
}

impl<T> Stream for Replies<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.inner).poll_next(context) {
            Poll::Ready(Some(Ok(reply))) => return Poll::Ready(Some(Ok(reply))),
            Poll::Ready(Some(Err(status))) => {
                this.ended = true;
                return Poll::Ready(Some(Err(status.into())));
            }
            Poll::Ready(None) => {
                this.ended = true;
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            this.ended = true;
            return Poll::Ready(Some(Err(ClientError::deadline())));
        }
        Poll::Pending
    }
}

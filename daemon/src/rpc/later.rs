//! What the wire has and this daemon does not do yet: each of these calls ends with UNIMPLEMENTED.
//!
//! A service lists such calls with [`not_yet`] instead of pretending; who builds one takes its line out,
//! and who builds the last one deletes this file.

use tonic::Status;

/// Writes methods of a service that refuse: `name: what it is asked => what it would answer`.
macro_rules! not_yet {
    ($($method:ident: $request:ty => $response:ty;)*) => {$(
        fn $method<'life0, 'async_trait>(
            &'life0 self,
            _: ::tonic::Request<$request>,
        ) -> ::std::pin::Pin<Box<dyn Future<Output = Result<::tonic::Response<$response>, ::tonic::Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err($crate::rpc::later::refusal(stringify!($method))) })
        }
    )*};
}
pub(super) use not_yet;

/// How such a call ends.
pub(super) fn refusal(rpc: &str) -> Status {
    Status::unimplemented(format!("this daemon has no `{rpc}` yet"))
}

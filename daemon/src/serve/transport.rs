//! The gRPC server: explicit limits, health, reflection.
//!
//! tonic leaves its limits open; each one is set here by name. Health is told per service and for the
//! server as a whole, so a load balancer may ask for either.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pointsman_proto::FILE_DESCRIPTOR_SET;
use pointsman_proto::v1::admin_service_server::AdminServiceServer;
use pointsman_proto::v1::feedback_service_server::FeedbackServiceServer;
use pointsman_proto::v1::policy_service_server::PolicyServiceServer;
use pointsman_proto::v1::router_service_server::RouterServiceServer;
use pointsman_proto::v1::stats_service_server::StatsServiceServer;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use tower::util::MapResponseLayer;

use super::tls::Tls;
use crate::rpc::admin::Administration;
use crate::rpc::decode;
use crate::rpc::door::Door;
use crate::rpc::ending::InTime;
use crate::rpc::feedback::Verdicts;
use crate::rpc::policy::Policies;
use crate::rpc::router::Routing;
use crate::rpc::stats::Statistics;

/// Requests that one connection may have open at once.
const STREAMS_MAX: u32 = 100;
/// Bytes of all headers of a request.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Streams that a peer may reset before they were accepted (rapid reset).
const PENDING_ACCEPT_RESETS_MAX: usize = 20;
/// Streams that we may reset for a peer's faults before the connection is closed.
const LOCAL_ERROR_RESETS_MAX: usize = 1_024;
/// Bytes of one request that wait to be read, as gRPC has it elsewhere.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Bytes of a connection that wait to be read: more than all its streams may have, since the HTTP/2 library closes a
/// connection whose unread small frames add up to half of it, a small one counting as up to 256 bytes. A stream of
/// feedback is nothing but small frames, and may run ahead of its acknowledgements.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// A silent connection is asked after this time whether anybody is there ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// ... and closed when nobody answers for this long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// All services of the daemon, and the door in front of them.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub(super) door: Door,
    pub(super) routing: Routing,
    pub(super) verdicts: Verdicts,
    pub(super) statistics: Statistics,
    pub(super) policies: Policies,
    pub(super) administration: Administration,
}

/// How to serve them.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    pub(super) message_bytes_max: usize,
    pub(super) reflection: bool,
    pub(super) tls: Option<Arc<Tls>>,
}

/// Tells who serves.
#[derive(Debug, Clone)]
pub(super) struct Health(HealthReporter);

impl Health {
    /// Tells of every service, and of the server as a whole, that it serves or no longer does.
    pub(super) async fn tell(&self, status: ServingStatus) {
        let services = ["RouterService", "FeedbackService", "StatsService", "PolicyService", "AdminService"];
        for service in services {
            self.0.set_service_status(format!("pointsman.v1.{service}"), status).await;
        }
        self.0.set_service_status("", status).await;
    }
}

/// The server's future, which ends after `stop` once every connection is closed, and its health.
///
/// # Errors
/// What the transport met.
pub(super) fn serve(
    listener: TcpListener,
    services: Services,
    transport: Transport,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<
    (impl Future<Output = Result<(), tonic::transport::Error>> + Send, Health),
    tonic_reflection::server::Error,
> {
    let (reporter, health) = health_reporter();
    let Services { door, routing, verdicts, statistics, policies, administration } = services;
    let max = transport.message_bytes_max;
    macro_rules! limited {
        ($server:ident, $service:expr) => {
            $server::new($service).max_decoding_message_size(max).max_encoding_message_size(max)
        };
    }
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = transport.reflection.then(|| described().build_v1()).transpose()?;
    let v1alpha = transport.reflection.then(|| described().build_v1alpha()).transpose()?;
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_ACCEPT_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(tower::layer::layer_fn(InTime::new))
        .layer(door)
        .layer(MapResponseLayer::new(decode::answer))
        .add_service(health)
        .add_optional_service(v1)
        .add_optional_service(v1alpha)
        .add_service(limited!(RouterServiceServer, routing))
        .add_service(limited!(FeedbackServiceServer, verdicts))
        .add_service(limited!(StatsServiceServer, statistics))
        .add_service(limited!(PolicyServiceServer, policies))
        .add_service(limited!(AdminServiceServer, administration));
    let health = Health(reporter);
    let served = async move {
        match transport.tls {
            Some(tls) => server.serve_with_incoming_shutdown(tls.incoming(listener), stop).await,
            None => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                server.serve_with_incoming_shutdown(incoming, stop).await
            }
        }
    };
    Ok((served, health))
}

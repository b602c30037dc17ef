//! TLS: the certificate, its renewal, clients that must show one, handshakes that never end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_client::{Client, Target, Tls as ClientTls, v1};
use pointsman_daemon::backends;
use pointsman_daemon::config::{Environment, Flags};
use pointsman_daemon::rpc::traffic::Traffic;
use pointsman_daemon::serve::{Daemon, ServeError, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::Setup;

/// An authority and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for `localhost`, and its key.
    fn sign(&self) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let signed =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (signed.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    fn write(&self, folder: &Path) {
        let (certificate, key) = self.sign();
        std::fs::write(folder.join("server.pem"), certificate).unwrap();
        std::fs::write(folder.join("server.key"), key).unwrap();
    }
}

fn setup(more: &str) -> Setup {
    Setup::with(&format!("tls = {{ certificate = \"server.pem\", key = \"server.key\"{more} }}\n"))
}

/// A daemon behind TLS.
struct Secured {
    address: String,
    tls: Arc<Tls>,
    traffic: Traffic,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Secured {
    async fn start(setup: &Setup) -> Result<Self, ServeError> {
        let flags = Flags { file: Some(setup.folder().join("pointsman.toml")), ..Flags::default() };
        let loaded = backends::load(&Environment::default(), &flags).unwrap();
        let listener = TcpListener::bind(loaded.config.server.listen).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let daemon = Daemon::open(loaded).await?;
        let (tls, traffic) = (Arc::clone(daemon.tls().unwrap()), daemon.traffic().clone());
        Ok(Self { address, tls, traffic, served: tokio::spawn(daemon.serve(listener)) })
    }

    async fn stop(self) {
        self.traffic.drain(None);
        self.served.await.unwrap().unwrap();
    }
}

async fn ask(daemon: &Secured, tls: ClientTls) -> Result<(), String> {
    let port = daemon.address.rsplit(':').next().unwrap();
    let target = Target {
        tls: Some(tls),
        connect_within: Duration::ZERO,
        deadline: Some(Duration::from_secs(5)),
        ..Target::new(format!("https://localhost:{port}"))
    };
    let client = Client::connect(target).await.map_err(|error| error.to_string())?;
    client.list_models(v1::ListModelsRequest {}).await.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_renewed_certificate_serves_new_connections() {
    let (setup, first, second) = (setup(""), Authority::new(), Authority::new());
    first.write(setup.folder());
    let daemon = Secured::start(&setup).await.unwrap();
    let trusting = |authority: &Authority| ClientTls { authorities: authority.pem(), identity: None };
    ask(&daemon, trusting(&first)).await.unwrap();
    ask(&daemon, trusting(&second)).await.unwrap_err();

    // Half of a renewal: the earlier certificate stays.
    std::fs::write(setup.folder().join("server.key"), second.sign().1).unwrap();
    daemon.tls.reload().unwrap_err();
    ask(&daemon, trusting(&first)).await.unwrap();
    second.write(setup.folder());
    assert!(daemon.tls.reload().unwrap());
    assert!(!daemon.tls.reload().unwrap(), "nothing changed since");
    ask(&daemon, trusting(&second)).await.unwrap();
    ask(&daemon, trusting(&first)).await.unwrap_err();
    daemon.stop().await;
}

#[tokio::test]
async fn clients_show_a_certificate_where_one_is_demanded() {
    let (setup, server, clients) =
        (setup(", client_authorities = \"clients.pem\""), Authority::new(), Authority::new());
    server.write(setup.folder());
    std::fs::write(setup.folder().join("clients.pem"), clients.pem()).unwrap();
    let daemon = Secured::start(&setup).await.unwrap();
    let showing = |identity| ClientTls { authorities: server.pem(), identity };
    ask(&daemon, showing(Some(clients.sign()))).await.unwrap();
    ask(&daemon, showing(None)).await.unwrap_err();
    ask(&daemon, showing(Some(server.sign()))).await.unwrap_err();
    daemon.stop().await;
}

#[tokio::test]
async fn handshakes_that_never_begin_hold_nobody_up() {
    let (setup, authority) = (setup(""), Authority::new());
    authority.write(setup.folder());
    let daemon = Secured::start(&setup).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(&daemon.address).await.unwrap());
    }
    ask(&daemon, ClientTls { authorities: authority.pem(), identity: None }).await.unwrap();
    // They are let go after the time of a handshake.
    let read = idle.pop().unwrap().read(&mut [0]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_keeps_the_daemon_from_starting() {
    let (setup, authority) = (setup(""), Authority::new());
    let absent = Secured::start(&setup).await.err().unwrap().to_string();
    assert!(absent.contains("server.pem"), "{absent}");
    authority.write(setup.folder());
    std::fs::write(setup.folder().join("server.key"), authority.sign().1).unwrap();
    assert!(Secured::start(&setup).await.is_err(), "a key of another certificate");
}

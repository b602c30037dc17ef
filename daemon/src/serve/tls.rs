//! TLS at the port: certificates from files, read again when they change; clients' certificates where they are
//! demanded; handshakes that end.
//!
//! Whoever does not finish a handshake in time is let go, and only so many are under way at once, so slow ones
//! hold nobody up for long. A file that cannot be read later keeps the certificate that there is; at the start it
//! keeps the daemon from starting. Nothing here ever prints a key.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{Stream, stream};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::config::TlsFiles;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes that may be under way at once; more wait to be accepted.
const HANDSHAKES_MAX: usize = 4_096;
/// How long accepting pauses after it failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no TLS. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of the kind.
    #[error("{} cannot be used as {what}: {detail}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the reader said.
        detail: String,
    },
    /// The certificate, the key or the authorities do not fit together.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authorities for clients cannot be used.
    #[error("the authorities for clients cannot be used: {0}")]
    Clients(#[from] rustls::server::VerifierBuilderError),
}

/// TLS, and where its certificate comes from.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    certificate: Arc<Current>,
    config: Arc<ServerConfig>,
}

/// The certificate of now.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certificate = Arc::new(Current(ArcSwap::from_pointee(certified(&files, &provider)?)));
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match &files.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path, "authorities of clients")? {
                    roots.add(authority)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { files, provider, certificate, config: Arc::new(config) })
    }

    /// Reads certificate and key again; connections that are open keep theirs. `false` where they are the same.
    ///
    /// # Errors
    /// [`TlsError`]: then the ones that there are stay.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let fresh = certified(&self.files, &self.provider)?;
        let changed = fresh.cert != self.certificate.0.load().cert;
        if changed {
            self.certificate.0.store(Arc::new(fresh));
        }
        Ok(changed)
    }

    /// The secured connections of a listener. Handshakes go on beside one another while it is polled.
    pub(super) fn incoming(&self, listener: TcpListener) -> impl Stream<Item = io::Result<Secured>> + use<> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let state = (listener, acceptor, JoinSet::new());
        Box::pin(stream::unfold(state, |(listener, acceptor, mut handshakes)| async move {
            loop {
                tokio::select! {
                    Some(shaken) = handshakes.join_next() => {
                        if let Ok(Some(secured)) = shaken {
                            return Some((Ok(secured), (listener, acceptor, handshakes)));
                        }
                    }
                    accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => match accepted {
                        Ok((stream, _)) => drop(handshakes.spawn(shake(acceptor.clone(), stream))),
                        Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                    },
                }
            }
        }))
    }
}

/// A handshake, as far as it ends well and in time.
async fn shake(acceptor: TlsAcceptor, stream: TcpStream) -> Option<Secured> {
    // Small messages are not held back for larger ones; where that cannot be set, they only are slower.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Secured(stream)),
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
    None
}

fn certified(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate, "a certificate")?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, "its key", &error))?;
    let certified = CertifiedKey::from_der(chain, key, provider)?;
    certified.keys_match()?;
    Ok(certified)
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| unusable(path, what, &error))?;
    if read.is_empty() {
        let detail = "there is no certificate in it".to_owned();
        return Err(TlsError::File { path: path.to_owned(), what, detail });
    }
    Ok(read)
}

fn unusable(path: &Path, what: &'static str, error: &rustls::pki_types::pem::Error) -> TlsError {
    TlsError::File { path: path.to_owned(), what, detail: error.to_string() }
}

/// A secured connection.
#[derive(Debug)]
pub(super) struct Secured(TlsStream<TcpStream>);

impl Connected for Secured {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

//! [`Transport`]: a TCP connection to the broker, plain or under TLS.

use super::settings::{Settings, Tls};
use crate::authorities::{self, SYSTEM_AUTHORITIES};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A connection that no longer blocks once it is open.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    /// Connects and, with TLS, shakes hands; an error says what to look at.
    pub(super) fn open(settings: &Settings) -> Result<Transport, String> {
        let until = Instant::now() + settings.connect_timeout();
        let socket = connect(settings, until)?;
        let transport = match &settings.tls {
            None => Transport::Plain(socket),
            Some(tls) => Transport::Tls(Box::new(shake_hands(settings, tls, socket, until)?)),
        };
        transport
            .socket()
            .set_nonblocking(true)
            .map_err(|fault| format!("the socket cannot be set up: {fault}"))?;
        Ok(transport)
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => stream.get_ref(),
        }
    }

    /// Whether bytes wait below that [`Write::write`] has taken.
    pub(super) fn holds_output(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(stream) => stream.conn.wants_write(),
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.read(buffer),
            Transport::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write(bytes),
            Transport::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(socket) => socket.flush(),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}

fn connect(settings: &Settings, until: Instant) -> Result<TcpStream, String> {
    let (host, port) = (settings.host.as_str(), settings.port());
    let addresses = (host, port).to_socket_addrs().map_err(|fault| {
        format!("`{host}` has no address: {fault}; check mqtt.host and the network")
    })?;
    let mut last = format!("`{host}` has no address; check mqtt.host");
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => {
                // Small packets are sent at once; without it they only come later.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(fault) => {
                last = format!("cannot connect to {address}: {fault}; is the broker running?");
            }
        }
    }
    Err(last)
}

fn shake_hands(
    settings: &Settings,
    tls: &Tls,
    mut socket: TcpStream,
    until: Instant,
) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let name = tls.server_name.as_ref().unwrap_or(&settings.host);
    let server = ServerName::try_from(name.clone())
        .map_err(|_| format!("`{name}` is no name for TLS; check mqtt.tls.server_name"))?;
    let config = client_config(tls)?;
    let mut connection = ClientConnection::new(Arc::new(config), server)
        .map_err(|fault| format!("TLS cannot be set up: {fault}"))?;
    while connection.is_handshaking() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!(
                "`{}` does not answer the TLS handshake",
                settings.host
            ));
        }
        let both = socket
            .set_read_timeout(Some(left))
            .and_then(|()| socket.set_write_timeout(Some(left)));
        both.and_then(|()| connection.complete_io(&mut socket).map(drop))
            .map_err(|fault| {
                format!(
                    "the TLS handshake with `{}` failed: {fault}; check mqtt.tls, the broker's \
                     certificate and this device's clock",
                    settings.host
                )
            })?;
    }
    Ok(StreamOwned::new(connection, socket))
}

fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let authorities = tls.ca.as_deref().unwrap_or(Path::new(SYSTEM_AUTHORITIES));
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots
            .add(certificate)
            .map_err(|fault| unusable(authorities, "certificate authority", fault))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|fault| format!("TLS cannot be set up: {fault}"))?
        .with_root_certificates(roots);
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|fault| unusable(key, "private key", fault))?;
    builder
        .with_client_auth_cert(certificates(cert)?, private)
        .map_err(|fault| unusable(cert, "client certificate", fault))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    authorities::certificates(path).map_err(|fault| unusable(path, "certificate file", fault))
}

fn unusable(path: &Path, what: &str, fault: impl Display) -> String {
    format!("{}: this {what} cannot be used: {fault}", path.display())
}

//! Certificates that TLS connections trust or show.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::sync::Arc;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Where Debian and its kin keep the authorities they trust.
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Reads all certificates of a PEM file.
///
/// # Errors
///
/// What is wrong with the file, one without certificates included.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|fault| fault.to_string())?;
    let certificates: Vec<_> = read
        .collect::<Result<_, _>>()
        .map_err(|fault| fault.to_string())?;
    match certificates.is_empty() {
        true => Err("it holds no certificate".to_owned()),
        false => Ok(certificates),
    }
}

/// How a client of HTTPS connects that trusts the certificates of a PEM file alone.
///
/// # Errors
///
/// As [`certificates`].
pub fn tls_config(path: &Path) -> Result<TlsConfig, String> {
    let roots = certificates(path)?;
    let roots = roots
        .iter()
        .map(|der| Certificate::from_der(der).to_owned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

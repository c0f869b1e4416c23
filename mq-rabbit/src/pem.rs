//! Files of certificates and keys: read, and parsed to the end, because the client would pass over what is damaged.

use std::path::Path;

use mq_core::{Error, Result};
use pki_types::pem::PemObject;
use pki_types::{CertificateDer, PrivateKeyDer};
use webpki::{EndEntityCert, anchor_from_trusted_cert};

/// The text of a file of authorities, each of which can be trusted.
///
/// # Errors
/// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid), by the name of the file.
pub(crate) fn authorities(path: &Path) -> Result<String> {
    read(path, |text| each(text, |certificate| anchor_from_trusted_cert(certificate).map(drop)))
}

/// The text of a file of a client's certificate and those between it and its authority.
///
/// # Errors
/// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid), by the name of the file.
pub(crate) fn certificates(path: &Path) -> Result<String> {
    read(path, |text| each(text, |certificate| EndEntityCert::try_from(certificate).map(drop)))
}

/// The text of a file of a private key.
///
/// # Errors
/// [`ConfigInvalid`](mq_core::Kind::ConfigInvalid), by the name of the file, and without a word of what is in it.
pub(crate) fn key(path: &Path) -> Result<String> {
    read(path, |text| {
        let parsed = PrivateKeyDer::from_pem_slice(text.as_bytes());
        parsed.map(drop).map_err(|_| "holds no PEM block of a private key that can be read".to_owned())
    })
}

fn read(path: &Path, check: impl FnOnce(&str) -> std::result::Result<(), String>) -> Result<String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::config(format!("the file `{shown}` cannot be read: {e}")))?;
    check(&text).map_err(|why| Error::config(format!("the file `{shown}` {why}; write it again")))?;
    Ok(text)
}

fn each(
    text: &str,
    check: impl Fn(&CertificateDer<'_>) -> std::result::Result<(), webpki::Error>,
) -> std::result::Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        count += 1;
        let certificate =
            certificate.map_err(|e| format!("is damaged: PEM block {count} cannot be read: {e}"))?;
        check(&certificate).map_err(|e| format!("is damaged: certificate {count} cannot be read: {e}"))?;
    }
    if count == 0 {
        return Err("holds no PEM block `BEGIN CERTIFICATE`".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::Kind;
    use std::path::PathBuf;

    /// Of an authority; nothing is signed with its key, which was thrown away.
    const GOOD: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBcTCCARegAwIBAgIUJGxc2g6anDRnbGcdlpcRfIFJqU0wCgYIKoZIzj0EAwIw\n\
DTELMAkGA1UEAwwCY2EwIBcNMjYxMTIzMTQyMDM4WhgPMjEyNjEwMzAxNDIwMzha\n\
MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaBAXa7rU\n\
cDllfZaDcgLwea6EBoVPLVxcYBLUBwiiUCKw0dz6pzKiKp6FyEGCSyM3FEsAbTbz\n\
yJerri0ANNQK0aNTMFEwHQYDVR0OBBYEFHGtQ15ndK/7Tb8hT0FmSd1uXxoKMB8G\n\
A1UdIwQYMBaAFHGtQ15ndK/7Tb8hT0FmSd1uXxoKMA8GA1UdEwEB/wQFMAMBAf8w\n\
CgYIKoZIzj0EAwIDSAAwRQIgRywHELWMB5THBcKKp/QIp34g4RfLG0+CCj6qrLbh\n\
n5sCIQDaMOy7Ua+OUpH4B12Xn5/mQlHHhWQczvGRJ5WiCH2YnA==\n\
-----END CERTIFICATE-----\n\
";

    struct File(PathBuf);

    impl File {
        fn of(name: &str, text: &str) -> Self {
            let file = std::env::temp_dir().join(format!("mq-pem-{}-{name}", std::process::id()));
            std::fs::write(&file, text).unwrap();
            Self(file)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn refused(read: fn(&Path) -> Result<String>, name: &str, text: &str, part: &str) {
        let file = File::of(name, text);
        let e = read(&file.0).expect_err(name);
        assert_eq!(e.kind(), Kind::ConfigInvalid, "{e}");
        assert!(e.to_string().contains(part) && e.to_string().contains(name), "{e}");
    }

    /// Another letter in the middle of the certificate: the PEM block is whole, what is in it is not.
    fn corrupt() -> String {
        GOOD.replacen("MIIB", "AAAA", 1)
    }

    #[test]
    fn whole_certificates_are_taken() {
        let file = File::of("good", &format!("a comment\n{GOOD}{GOOD}"));
        assert!(authorities(&file.0).is_ok() && certificates(&file.0).is_ok());
    }

    #[test]
    fn a_damaged_authority_is_refused_although_its_header_is_right() {
        for read in [authorities, certificates] {
            refused(read, "corrupt", &corrupt(), "certificate 1");
            refused(read, "second", &format!("{GOOD}{}", corrupt()), "certificate 2");
            refused(read, "cut", GOOD.split_at(GOOD.len() / 2).0, "PEM block 1");
            refused(read, "letters", &GOOD.replacen("MIIB", "M!!B", 1), "PEM block 1");
            refused(read, "empty", "", "no PEM block");
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_is_refused_without_a_word_of_it() {
        let damaged = "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n";
        refused(key, "key", damaged, "private key");
        refused(key, "no-key", GOOD, "private key");
        let file = File::of("shown", damaged);
        assert!(!format!("{:?}", key(&file.0).unwrap_err()).contains("hunter2"));
    }
}

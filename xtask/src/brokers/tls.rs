//! Certificates for the brokers' TLS listeners: a private authority, a server, a client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::state::Store;
use super::{install, user};
use crate::{Context, Result, shell};

const CALL: Duration = Duration::from_secs(30);

/// What each certificate may be used for. The server's carries the name and the address, since
/// clients check whichever they connected to.
const PROFILES: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:mq-client
";

/// PEM files in one folder; keys are in PKCS 8.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// The certificates of this store, made when there are none; the keys belong to `user`.
    ///
    /// # Errors
    /// When openssl is missing and can't be installed, or fails.
    pub(super) fn of(store: &Store, user: Option<(u32, u32)>) -> Result<Self> {
        let _one_at_a_time = store.lock("tls.lock", CALL)?;
        let made = Self::in_dir(store.dir().join("tls"));
        if made.server_bundle().is_file() {
            return Ok(made);
        }
        let log = store.dir().join("install.log");
        let openssl = install::program("openssl", "openssl", "TLS listeners need certificates", &log)?;
        user::make_dir(&made.dir, user)?;
        let profiles = made.dir.join("openssl.cnf");
        fs::write(&profiles, PROFILES).context(|| format!("writing {}", profiles.display()))?;
        for profile in ["ca", "server", "client"] {
            shell::run("openssl", &mut request(&openssl, &made.dir, profile), &log, CALL)?;
        }
        made.bundle()?;
        for file in ["server.key", "server-bundle.pem"] {
            user::give(&made.dir.join(file), user)?;
        }
        Ok(made)
    }

    /// The certificates in `dir`, whether they are there yet or not.
    pub(super) fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The authority's certificate.
    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The server's certificate.
    pub(super) fn server(&self) -> PathBuf {
        self.dir.join("server.pem")
    }

    /// The server's key.
    pub(super) fn server_key(&self) -> PathBuf {
        self.dir.join("server.key")
    }

    /// The server's key and certificate in one file.
    pub(super) fn server_bundle(&self) -> PathBuf {
        self.dir.join("server-bundle.pem")
    }

    /// The files that a client needs, by the names they have in the state file.
    pub(super) fn for_clients(&self) -> [(String, PathBuf); 3] {
        [("ca", "ca.pem"), ("client_cert", "client.pem"), ("client_key", "client.key")]
            .map(|(purpose, file)| (purpose.to_owned(), self.dir.join(file)))
    }

    fn bundle(&self) -> Result<()> {
        let read =
            |file: PathBuf| fs::read_to_string(&file).context(|| format!("reading {}", file.display()));
        let text = read(self.server_key())? + &read(self.server())?;
        let file = self.server_bundle();
        fs::copy(self.server_key(), &file).context(|| format!("writing {}", file.display()))?;
        fs::write(&file, text).context(|| format!("writing {}", file.display()))
    }
}

/// A new key and its certificate, signed by itself (the authority) or by the authority.
fn request(openssl: &Path, dir: &Path, profile: &str) -> Command {
    let mut command = Command::new(openssl);
    command.current_dir(dir).args(["req", "-x509", "-config", "openssl.cnf", "-days", "3650", "-nodes"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-extensions", profile]);
    command.args(["-subj", &format!("/CN=mq-{profile}")]);
    command.args(["-keyout", &format!("{profile}.key"), "-out", &format!("{profile}.pem")]);
    if profile != "ca" {
        command.args(["-CA", "ca.pem", "-CAkey", "ca.key"]);
    }
    command
}

//! A token endpoint on loopback, on a thread that ends with the process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mq_core::Timestamp;
use mq_kafka::TokenEndpoint;

/// The only client that it knows.
pub(crate) const CLIENT: (&str, &str) = ("mq", "mq-secret");

/// How the tokens are.
#[derive(Clone, Copy)]
pub(crate) struct Tokens {
    pub(crate) life: Duration,
    /// What the token claims to be signed with; the broker takes `none`.
    pub(crate) signed: &'static str,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { life: Duration::from_secs(300), signed: "none" }
    }
}

impl Tokens {
    fn one(self) -> String {
        let now = Timestamp::now().as_millis() / 1000;
        let claims = serde_json::json!({ "sub": CLIENT.0, "iat": now, "exp": now + self.life.as_secs() });
        let header = serde_json::json!({ "alg": self.signed, "typ": "JWT" });
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signature = if self.signed == "none" { "" } else { "c2lnbmVk" };
        format!("{header}.{claims}.{signature}")
    }
}

pub(crate) struct Endpoint {
    address: SocketAddr,
    given: Arc<AtomicUsize>,
}

impl Endpoint {
    pub(crate) fn start(tokens: Tokens) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, given) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let counter = Arc::clone(&given);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is no matter of the test.
                drop(answer(stream, tokens, &counter));
            }
        });
        Self { address, given }
    }

    pub(crate) fn config(&self) -> TokenEndpoint {
        TokenEndpoint::new(format!("http://{}/token", self.address)).scope("orders")
    }

    /// How many tokens it has given out.
    pub(crate) fn given(&self) -> usize {
        self.given.load(Ordering::Acquire)
    }
}

fn answer(stream: TcpStream, tokens: Tokens, given: &AtomicUsize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(&stream);
    let (mut known, mut length) = (false, 0);
    let expected = format!("Basic {}", STANDARD.encode(format!("{}:{}", CLIENT.0, CLIENT.1)));
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() { break } else { continue }
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => known = value == expected,
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut form = vec![0; length];
    reader.read_exact(&mut form)?;
    let form = String::from_utf8_lossy(&form).into_owned();
    let asked = form.contains("grant_type=client_credentials") && form.contains("scope=orders");
    let (status, body) = if known && asked {
        given.fetch_add(1, Ordering::AcqRel);
        ("200 OK", serde_json::json!({ "access_token": tokens.one(), "token_type": "Bearer" }))
    } else {
        ("401 Unauthorized", serde_json::json!({ "error": "invalid_client" }))
    };
    let body = body.to_string();
    let head = "Content-Type: application/json\r\nConnection: close";
    write!(&stream, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

//! No secret in any text: errors, `Debug`, and all that this crate and its client trace. No broker is needed.

use mq_conformance::secrets::{CANARY, Transcript, connect_to_all};
use mq_core::{Registry, Secret};
use mq_rabbit::RabbitConfig;

/// The secret in every place of a URL where one can stand, right and wrong.
fn urls() -> Vec<String> {
    let encoded = CANARY.replace('h', "%68");
    [
        "amqp://user:SECRET@127.0.0.1:1/v?connect_timeout=500ms",
        "amqp://user:ENCODED@127.0.0.1:1/v?connect_timeout=500ms",
        "amqp://user@127.0.0.1:1?password=SECRET&connect_timeout=500ms",
        "amqp://user:SECRET@127.0.0.1:1,127.0.0.1:2/v?connect_timeout=500ms",
        "amqp://user:SECRET@127.0.0.1:1?no_such_key=1",
        "amqp://user:SECRET@127.0.0.1:1?heartbeat=never",
        "amqp://user:SECRET@127.0.0.1:port",
        "amqp://user:SECRET@[::1",
        "amqp://user:SECRET@broker.example.com",
        "amqps://user:SECRET@127.0.0.1:1?connect_timeout=500ms",
        "amqps://user:SECRET@127.0.0.1:1?cert=c.pem",
        "amqp://user:SECRET@127.0.0.1:1?ca=c.pem",
        "amqp://user:SECRET%@127.0.0.1:1",
        "rabbit://user:SECRET@127.0.0.1:1",
        "user:SECRET@127.0.0.1:1",
    ]
    .map(|url| url.replace("SECRET", CANARY).replace("ENCODED", &encoded))
    .into()
}

#[tokio::test]
async fn no_text_shows_the_secret() {
    let transcript = Transcript::default();
    tracing::subscriber::set_global_default(transcript.subscriber()).unwrap();
    let registry = Registry::new().with(mq_rabbit::backend());
    for url in urls() {
        match RabbitConfig::from_url(&url) {
            Ok(config) => transcript.add(format_args!("{config:?} {config:#?}")),
            Err(error) => transcript.add_error(&error),
        }
    }
    let config = RabbitConfig::new("localhost").with_credentials("user", Secret::from(CANARY));
    transcript.add(format_args!("{config:?} {config:#?}"));
    connect_to_all(&registry, &urls(), &transcript).await;
    let text = transcript.text();
    assert!(
        text.contains("password: ***") && text.contains("disconnected"),
        "too little was written down: {text}"
    );
    assert_eq!(transcript.leaks(), [""; 0]);
}

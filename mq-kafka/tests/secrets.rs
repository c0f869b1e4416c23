//! No secret in any text: errors, `Debug`, and all that this crate and its client log. No broker is needed.

use mq_conformance::secrets::{CANARY, Transcript, connect_to_all};
use mq_core::Registry;
use mq_kafka::{KafkaConfig, Mechanism};

/// The secret in every place of a URL where one can stand, right and wrong.
fn urls() -> Vec<String> {
    let encoded = CANARY.replace('h', "%68");
    [
        "kafka://user:SECRET@127.0.0.1:1?connect_timeout=500ms",
        "kafka://user:ENCODED@127.0.0.1:1?connect_timeout=500ms",
        "kafka://user@127.0.0.1:1?password=SECRET&connect_timeout=500ms",
        "kafka://user:SECRET@127.0.0.1:1,127.0.0.1:2?connect_timeout=500ms",
        "kafka://user:SECRET@127.0.0.1:1?mechanism=scram-sha-256&connect_timeout=500ms",
        "kafka://user:SECRET@127.0.0.1:1?mechanism=oauthbearer&token_endpoint=http://127.0.0.1:2/&connect_timeout=500ms",
        "kafka://user:SECRET@127.0.0.1:1?mechanism=oauthbearer&token_endpoint=SECRET",
        "kafka://user:SECRET@127.0.0.1:1?mechanism=magic",
        "kafka://user:SECRET@127.0.0.1:1?no_such_key=1",
        "kafka://user:SECRET@127.0.0.1:1?session_timeout=never",
        "kafka://user:SECRET@127.0.0.1:port",
        "kafka://user:SECRET@[::1",
        "kafka://user:SECRET@broker.example.com",
        "kafka://user:SECRET@127.0.0.1:1/path",
        "kafka://127.0.0.1:1?rdkafka.ssl.key.password=SECRET&connect_timeout=500ms",
        "kafka://127.0.0.1:1?rdkafka.ssl.key.pem=SECRET&connect_timeout=500ms",
        "kafka://127.0.0.1:1?rdkafka.ssl.keystore.password=SECRET&connect_timeout=500ms",
        "kafka://127.0.0.1:1?rdkafka.sasl.oauthbearer.config=SECRET&connect_timeout=500ms",
        "kafka://127.0.0.1:1?rdkafka.sasl.oauthbearer.client.secret=SECRET&connect_timeout=500ms",
        "kafka://127.0.0.1:1?rdkafka.sasl.password=SECRET&connect_timeout=500ms",
        "kafka://127.0.0.1:1?rdkafka.debug=security,broker&rdkafka.ssl.key.password=SECRET&connect_timeout=500ms",
        "kafka://user:SECRET@127.0.0.1:1?rdkafka.debug=all&connect_timeout=500ms",
        "kafka://user:SECRET%@127.0.0.1:1",
    ]
    .map(|url| url.replace("SECRET", CANARY).replace("ENCODED", &encoded))
    .into()
}

/// What the client library says goes to `log`.
struct Logger(Transcript);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.add(format_args!("{}: {}", record.target(), record.args()));
    }

    fn flush(&self) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_shows_the_secret() {
    let transcript = Transcript::default();
    tracing::subscriber::set_global_default(transcript.subscriber()).unwrap();
    log::set_boxed_logger(Box::new(Logger(transcript.clone()))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let registry = Registry::new().with(mq_kafka::backend());
    for url in urls() {
        match KafkaConfig::from_url(&url) {
            Ok(config) => transcript.add(format_args!("{config:?} {config:#?}")),
            Err(error) => transcript.add_error(&error),
        }
    }
    let config = KafkaConfig::new(["127.0.0.1:1"]).credentials(Mechanism::Plain, "user", CANARY);
    transcript.add(format_args!("{config:?} {config:#?}"));
    connect_to_all(&registry, &urls(), &transcript).await;
    let text = transcript.text();
    assert!(text.contains("librdkafka") && text.contains("127.0.0.1"), "too little was written down: {text}");
    assert_eq!(transcript.leaks(), [""; 0]);
}

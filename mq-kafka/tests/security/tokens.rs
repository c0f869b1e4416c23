//! OAUTHBEARER, with tokens from an endpoint.

use super::endpoint::{CLIENT, Endpoint, Tokens};
use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_token_lets_us_in,
        a_token_goes_over_tls,
        tokens_are_renewed_by_every_native_client,
        a_client_that_the_endpoint_does_not_know_is_refused_for_good,
        a_token_that_the_broker_does_not_trust_is_refused_for_good,
    ]
}

fn bearer(config: KafkaConfig, endpoint: &Endpoint, secret: &str) -> KafkaConfig {
    config.credentials(Mechanism::Oauthbearer, CLIENT.0, secret).token_endpoint(endpoint.config())
}

async fn a_token_lets_us_in() {
    let endpoint = Endpoint::start(Tokens::default());
    works(bearer(listener(&url("sasl")), &endpoint, CLIENT.1)).await;
    assert!(endpoint.given() >= 3, "the producer, the administration and the consumer: {}", endpoint.given());
}

async fn a_token_goes_over_tls() {
    let endpoint = Endpoint::start(Tokens::default());
    works(bearer(listener(&url("sasl_tls")).tls(Some(file("ca"))), &endpoint, CLIENT.1)).await;
}

/// Nobody polls an idle client: the tokens must come without it.
async fn tokens_are_renewed_by_every_native_client() {
    let endpoint = Endpoint::start(Tokens { life: Duration::from_secs(5), ..Tokens::default() });
    let bed = Bed::with(bearer(listener(&url("sasl")), &endpoint, CLIENT.1)).await;
    let queue = bed.queue("renewed", 1).await;
    let mut inbox = bed.shared(&queue).await;
    bed.texts(&Target::queue(&queue), 1).await;
    let got = inbox.take(1).await;
    inbox.ack(&got).await;
    let clients = endpoint.given();
    while endpoint.given() < 4 * clients {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The first tokens have ended long ago.
    bed.queue("later", 1).await;
    bed.texts(&Target::queue(&queue), 1).await;
    let got = inbox.take(1).await;
    inbox.ack(&got).await;
    inbox.close().await;
    bed.close().await;
}

async fn a_client_that_the_endpoint_does_not_know_is_refused_for_good() {
    let endpoint = Endpoint::start(Tokens::default());
    refused(bearer(listener(&url("sasl")), &endpoint, "hunter2"), Kind::Unauthenticated).await;
    assert_eq!(endpoint.given(), 0);
}

async fn a_token_that_the_broker_does_not_trust_is_refused_for_good() {
    let endpoint = Endpoint::start(Tokens { signed: "HS256", ..Tokens::default() });
    refused(bearer(listener(&url("sasl")), &endpoint, CLIENT.1), Kind::Unauthenticated).await;
    assert!(endpoint.given() > 0);
}

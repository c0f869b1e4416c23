//! What a default build may bring along: no broker client, no TLS, few packages.

use std::collections::BTreeSet;
use std::process::Command;

/// Packages of the default facade at most, ours included.
const MOST: usize = 36;

fn tree(features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal", "--package", "mq-sdk", "--prefix", "none", "--locked"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_default_facade_is_small_and_has_no_broker_client_and_no_tls() {
    let packages = tree(&[]);
    println!("{} packages: {packages:?}", packages.len());
    assert!(packages.len() <= MOST, "{} packages, at most {MOST}: {packages:?}", packages.len());
    for banned in ["lapin", "rdkafka", "tonic", "rustls", "native-tls", "openssl", "openssl-sys", "ring"] {
        assert!(!packages.contains(banned), "{banned} is in the default build");
    }
}

#[test]
fn a_backend_brings_its_own_client_and_no_tls_unless_asked() {
    let rabbit = tree(&["--features", "rabbit"]);
    assert!(
        rabbit.contains("lapin") && !rabbit.contains("rdkafka") && !rabbit.contains("rustls"),
        "{rabbit:?}"
    );
    let kafka = tree(&["--features", "kafka"]);
    assert!(
        kafka.contains("rdkafka") && !kafka.contains("lapin") && !kafka.contains("openssl-sys"),
        "{kafka:?}"
    );
}

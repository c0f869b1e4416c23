use super::*;

fn scratch(name: &str) -> Store {
    let dir = std::env::temp_dir().join(format!("mq-xtask-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    Store::at(dir)
}

fn broker() -> Broker {
    let server = Program {
        command: vec!["java".into(), "-version".into()],
        env: BTreeMap::from([("LANG".into(), "C.UTF-8".into())]),
        dir: "/d".into(),
        user: Some((65534, 65534)),
        log: "/d/log".into(),
        process: Some(Identity { pid: 42, started: 4711, boot: "b".into() }),
    };
    Broker {
        product: Product::Kafka,
        version: "4.3.1".into(),
        mode: Mode::Native,
        env: "MQ_KAFKA_URL".into(),
        url: "kafka://127.0.0.1:1".into(),
        urls: BTreeMap::from([("proxied".into(), "kafka://127.0.0.1:2".into())]),
        files: BTreeMap::new(),
        dir: "/d".into(),
        nodes: vec![Node {
            name: "kafka".into(),
            ports: BTreeMap::from([("client".into(), 1)]),
            data: "/d/data".into(),
            server: Some(server),
            helpers: vec![],
        }],
    }
}

#[test]
fn what_is_written_is_read() {
    let store = scratch("round-trip");
    assert_eq!(store.load().unwrap(), State::default());
    store.update(|s| Ok(s.brokers.insert("kafka".into(), broker()))).unwrap();
    assert_eq!(store.broker("kafka").unwrap(), broker());
    fs::remove_dir_all(store.dir()).unwrap();
}

#[test]
fn a_failed_change_leaves_the_file_alone() {
    let store = scratch("failed");
    store.update(|s| Ok(s.brokers.insert("kafka".into(), broker()))).unwrap();
    let failed = store.update(|s| {
        s.brokers.clear();
        Err::<(), _>(Error::new("no"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no");
    assert_eq!(store.broker("kafka").unwrap(), broker());
    fs::remove_dir_all(store.dir()).unwrap();
}

#[test]
fn another_format_is_refused() {
    let store = scratch("format");
    fs::create_dir_all(store.dir()).unwrap();
    fs::write(store.file(), r#"{"format": 9, "brokers": {}}"#).unwrap();
    assert!(store.load().unwrap_err().to_string().contains("format 9"));
    fs::remove_dir_all(store.dir()).unwrap();
}

#[test]
fn a_missing_broker_names_the_command() {
    let error = scratch("missing").broker("rabbit4").unwrap_err();
    assert_eq!(error.to_string(), "rabbit4 is not up: run `cargo xtask brokers up rabbit4`");
}

#[test]
fn a_held_lock_is_waited_for_and_reported() {
    let store = scratch("lock");
    let held = store.lock("l", Duration::ZERO).unwrap();
    assert!(store.lock("l", Duration::ZERO).is_err());
    drop(held);
    assert!(store.lock("l", Duration::ZERO).is_ok());
    fs::remove_dir_all(store.dir()).unwrap();
}

use std::fmt::Write;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

fn parse(text: &str) -> Url {
    Url::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn revealed(url: &Url) -> String {
    let mut text = String::new();
    url.write(&mut text, Secret::expose, |_, value| value).unwrap();
    text
}

#[test]
fn hosts_and_ports() {
    let url = parse("KAFKA://a:1,b.c,[2001:db8::1],[::1]:9");
    let hosts: Vec<_> = url.hosts().iter().map(|h| (h.name.as_str(), h.port)).collect();
    assert_eq!(hosts, [("a", Some(1)), ("b.c", None), ("2001:db8::1", None), ("::1", Some(9))]);
    assert_eq!(url.scheme(), "kafka");
    assert_eq!(url.to_string(), "kafka://a:1,b.c,[2001:db8::1],[::1]:9");
}

#[test]
fn memory_urls() {
    assert!(parse("memory://").hosts().is_empty());
    assert!(parse("memory://?name=x").hosts().is_empty());
    assert_eq!(parse("memory://My_Name").hosts()[0].name, "My_Name");
}

#[test]
fn absent_empty_and_escaped_paths_differ() {
    let paths = ["x://h", "x://h/", "x://h/%2f", "x://h/a%2Fb", "x://h?k=/"].map(|t| parse(t).path);
    assert_eq!(
        paths.map(|p| p.map_or("none".into(), |p| format!("<{p}>"))),
        ["none", "<>", "</>", "<a/b>", "none"]
    );
}

#[test]
fn users_and_passwords() {
    let url = parse("x://u%40v:a:b%2F@h");
    assert_eq!((url.username(), url.password().map(Secret::expose)), (Some("u@v"), Some("a:b/")));
    let url = parse("x://:p@h");
    assert_eq!((url.username(), url.password().map(Secret::expose)), (None, Some("p")));
    let url = parse("x://u@h");
    assert_eq!((url.username(), url.password().is_some()), (Some("u"), false));
}

#[test]
fn bad_urls_are_refused_without_showing_their_text() {
    let many_hosts = format!("x://{}", ["hunter2"; 33].join(","));
    let many_keys = format!("x://h?{}", (0..65).map(|n| format!("hunter2{n}=1&")).collect::<String>());
    let long = format!("x://hunter2{}", "a".repeat(MAX_URL));
    let bad = [
        "",
        "hunter2",
        "x:/hunter2",
        "://hunter2",
        "1x://hunter2",
        "x y://hunter2",
        "x://hunter2,,b",
        "x://,hunter2",
        "x://:80",
        "x://h:0",
        "x://h:65536",
        "x://h:+1",
        "x://h:hunter2",
        "x://u:hunter2/@h",
        "x://u:1/hunter2@h",
        "x://u:1?hunter2@h",
        "x://u:hunter2#@h",
        "x://h/#hunter2",
        "x://h/hunter2%zz",
        "x://[::1",
        "x://[hunter2]",
        "x://[::1]hunter2",
        "x://hunter2%41",
        "x://h?=hunter2",
        "x://h?hunter2=1&hunter2=2",
        "x://h?a=hunter2%ff",
        "x://h\nhunter2",
        "x://h hunter2",
        "x://hünter2:1",
        &many_hosts,
        &many_keys,
        &long,
    ];
    for text in bad {
        let error = Url::parse(text).expect_err(text);
        assert_eq!(error.kind(), Kind::ConfigInvalid, "{text}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("ünter2"), "{shown}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let text = "x://u:hunter2@h/v?password=hunter2&sasl.secret=hunter2&accessKey=hunter2&ssl.key.pem=hunter2&\
                auth_token=hunter2&key_file=shown&password_env=ALSO&ca=plain";
    let url = parse(text);
    let shown = format!("{url} {url:?} {:#?} {:?}", url, url.query());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("key_file=shown&password_env=ALSO&ca=plain"), "{shown}");
}

#[test]
fn typed_values() {
    let mut q = parse("x://h?b=true&c=0&n=7&d=1500&e=2m&l=a,b&s=%20x+&t=1d").query();
    assert_eq!((q.take_bool("b").unwrap(), q.take_bool("c").unwrap()), (Some(true), Some(false)));
    assert_eq!((q.take_u32("n").unwrap(), q.take_u64("none").unwrap()), (Some(7), None));
    assert_eq!(q.take_duration("d").unwrap(), Some(Duration::from_millis(1500)));
    assert_eq!(q.take_duration("e").unwrap(), Some(Duration::from_secs(120)));
    assert_eq!(q.take_duration("t").unwrap(), Some(Duration::from_secs(86_400)));
    assert_eq!(q.take_list("l").unwrap(), Some(vec!["a".into(), "b".into()]));
    assert_eq!(q.take_str("s").as_deref(), Some(" x+"));
    q.finish().unwrap();
    for bad in ["", "+1", "-1", "4294967296", "1.5", "1 s", "5x", "99999999999999999999d"] {
        let query = || Query::new(vec![("k".into(), bad.into())], None);
        assert!(query().take_u32("k").is_err() && query().take_bool("k").is_err(), "{bad}");
        assert_eq!(query().take_duration("k").is_ok(), bad == "4294967296", "{bad}");
    }
    assert!(Query::new(vec![("k".into(), "a,,b".into())], None).take_list("k").is_err());
    let error = Query::new(vec![("key".into(), "hunter2".into())], None).take_u32("key").unwrap_err();
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn unknown_keys_are_listed_with_the_known_ones() {
    let mut q = parse("x://h?vhost=1&zzz=secret&colour%0A=2").query();
    q.take_str("vhost");
    q.take_u32("prefetch").unwrap();
    let error = q.finish().unwrap_err();
    assert_eq!(
        error.message(),
        "unknown URL keys `zzz`, `colour\\n`; known: admin_timeout, connect_timeout, name, prefetch, prefix, send_timeout, vhost"
    );
}

#[test]
fn passwords_have_one_source() {
    let taken = |text: &str| parse(text).query().take_password().map(|p| p.map(|p| p.expose().to_owned()));
    assert_eq!(taken("x://u:one@h").unwrap().as_deref(), Some("one"));
    assert_eq!(taken("x://u@h?password=two").unwrap().as_deref(), Some("two"));
    assert_eq!(taken("x://u@h").unwrap(), None);
    // A variable that every test process has.
    assert_eq!(taken("x://u@h?password_env=CARGO_PKG_NAME").unwrap().as_deref(), Some("mq-core"));
    for bad in [
        "x://u:one@h?password=two",
        "x://h?password=a&password_file=b",
        "x://h?password_env=MQ_SURELY_NOT_SET",
        "x://h?password_file=/surely/not/there",
    ] {
        assert_eq!(taken(bad).unwrap_err().kind(), Kind::ConfigInvalid, "{bad}");
    }
}

#[test]
fn common_keys_are_split_off() {
    let (common, rest) =
        parse("x://h?a=1&name=me&prefix=dev.&connect_timeout=3s&send_timeout=250&admin_timeout=1m")
            .split_common()
            .unwrap();
    assert_eq!((common.name.as_deref(), common.prefix.as_deref()), (Some("me"), Some("dev.")));
    assert_eq!(common.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(common.send_timeout, Some(Duration::from_millis(250)));
    assert_eq!(common.admin_timeout, Some(Duration::from_secs(60)));
    assert_eq!(rest.to_string(), "x://h?a=1");
    for bad in [
        "name=",
        "name=a%20b",
        "prefix=mq.",
        "prefix=mq",
        "prefix=a/b",
        "admin_timeout=0",
        "send_timeout=0",
        "connect_timeout=2d",
    ] {
        assert!(parse(&format!("x://h?{bad}")).split_common().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(text in "\\PC{0,60}", tail in "[a-z:/?#@%&=,\\[\\]0-9.]{0,60}") {
        for candidate in [text.clone(), tail.clone(), format!("x://{tail}"), format!("x://{text}{tail}")] {
            if let Ok(url) = Url::parse(&candidate) {
                let again = Url::parse(&revealed(&url)).unwrap();
                prop_assert_eq!(revealed(&again), revealed(&url));
                let _ = url.split_common();
            }
        }
    }

    #[test]
    fn parts_round_trip(
        user in proptest::option::of("\\PC{1,8}"), password in proptest::option::of("\\PC{0,8}"),
        hosts in proptest::collection::vec(("[a-zA-Z0-9._-]{1,9}|::1|fe80::2", proptest::option::of(1u16..)), 0..4),
        path in proptest::option::of("\\PC{0,8}"),
        query in proptest::collection::hash_map("\\PC{1,6}", "\\PC{0,6}", 0..4),
    ) {
        let url = Url {
            scheme: "x".into(), username: user, password: password.map(Secret::from),
            hosts: hosts.into_iter().map(|(name, port)| Host { name, port }).collect(),
            path, query: query.into_iter().collect(),
        };
        let mut text = String::new();
        write!(text, "{}", revealed(&url)).unwrap();
        let again = Url::parse(&text).unwrap();
        prop_assert_eq!(again.username(), url.username());
        prop_assert_eq!(again.password().map(Secret::expose), url.password().map(Secret::expose));
        prop_assert_eq!((again.hosts(), again.path(), &again.query), (url.hosts(), url.path(), &url.query));
    }
}

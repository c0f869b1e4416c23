use super::key;
use crate::Kind;
use crate::headers::Headers;
use crate::routing::{Bindings, check_binding};
use crate::spec::{Binding, ExchangeKind, HeadersMatch};

fn kind_of(kind: ExchangeKind, binding: &Binding) -> Option<Kind> {
    let checked = check_binding(kind, binding).err().map(|e| e.kind());
    let bound = Bindings::new(kind).bind(1, binding).err().map(|e| e.kind());
    assert_eq!(checked, bound);
    checked
}

#[test]
fn keys_have_limits() {
    for kind in [ExchangeKind::Fanout, ExchangeKind::Direct, ExchangeKind::Topic] {
        assert_eq!(kind_of(kind, &key(&"#.".repeat(63))), None);
        assert_eq!(kind_of(kind, &key(&"x".repeat(255))), None);
        assert_eq!(kind_of(kind, &key(&"#.".repeat(64))), Some(Kind::InvalidMessage));
        assert_eq!(kind_of(kind, &key(&"x".repeat(256))), Some(Kind::InvalidMessage));
    }
}

#[test]
fn matching_belongs_to_headers_exchanges() {
    let matching = Binding::headers("x", "q", HeadersMatch::all(Headers::new()));
    assert_eq!(kind_of(ExchangeKind::Headers, &matching), None);
    assert_eq!(kind_of(ExchangeKind::Headers, &key("a")), Some(Kind::ConfigInvalid));
    for kind in [ExchangeKind::Fanout, ExchangeKind::Direct, ExchangeKind::Topic] {
        assert_eq!(kind_of(kind, &matching), Some(Kind::ConfigInvalid));
    }
}

#[test]
fn matching_has_limits() {
    let of = |n: i64| HeadersMatch::all((0..n).map(|i| (format!("h{i}"), i)).collect());
    let one = |name: &str| HeadersMatch::all([(name, 1)].into_iter().collect());
    let good = [of(64), of(63).present("p"), one("x-a"), one("mQ-a")];
    let bad = [
        of(65),
        of(64).present("p"),
        one(""),
        one("x-match"),
        one("mq-id"),
        of(0).present(""),
        of(0).present("x-match").with_x(),
        of(0).present("mq-id"),
        of(2).present("h1"),
        of(0).present("p").present("p"),
        of(0).present("p".repeat(8193)),
        HeadersMatch::all([("h", "v".repeat(8192))].into_iter().collect()),
        HeadersMatch::any([("h", f64::NAN)].into_iter().collect()),
    ];
    for m in good {
        assert_eq!(kind_of(ExchangeKind::Headers, &Binding::headers("x", "q", m.clone())), None, "{m:?}");
    }
    for m in bad {
        let binding = Binding::headers("x", "q", m);
        assert_eq!(kind_of(ExchangeKind::Headers, &binding), Some(Kind::ConfigInvalid), "{binding:?}");
    }
}

use bytes::Bytes;

use crate::headers::{HeaderValue, Headers};
use crate::routing::Bindings;
use crate::spec::{Binding, ExchangeKind, HeadersMatch};

fn of(pairs: &[(&str, HeaderValue)]) -> Headers {
    pairs.iter().cloned().collect()
}

fn hits(matching: &HeadersMatch, headers: &Headers) -> bool {
    let mut bindings = Bindings::new(ExchangeKind::Headers);
    bindings.bind(1, &Binding::headers("x", "q", matching.clone())).unwrap();
    bindings.route("any.key", headers).len() == 1
}

#[test]
fn all_and_any() {
    let want = of(&[("a", 1.into()), ("b", "x".into())]);
    let (all, any) = (HeadersMatch::all(want.clone()), HeadersMatch::any(want.clone()));
    let extra = of(&[("c", 9.into()), ("b", "x".into()), ("a", 1.into())]);
    let half = of(&[("a", 1.into()), ("b", "y".into())]);
    let other = of(&[("a", 2.into()), ("B", "x".into())]);
    assert!(hits(&all, &want) && hits(&all, &extra) && !hits(&all, &half) && !hits(&all, &Headers::new()));
    assert!(hits(&any, &want) && hits(&any, &half) && !hits(&any, &other) && !hits(&any, &Headers::new()));
}

#[test]
fn an_empty_all_matches_and_an_empty_any_does_not() {
    for headers in [Headers::new(), of(&[("a", 1.into())])] {
        for with_x in [false, true] {
            let set = |m: HeadersMatch| if with_x { m.with_x() } else { m };
            assert!(hits(&set(HeadersMatch::all(Headers::new())), &headers));
            assert!(!hits(&set(HeadersMatch::any(Headers::new())), &headers));
        }
    }
}

#[test]
fn values_are_equal_by_type_and_content() {
    let values: [HeaderValue; 9] = [
        1.into(),
        1.0.into(),
        "1".into(),
        true.into(),
        "true".into(),
        0.into(),
        false.into(),
        "".into(),
        (-1).into(),
    ];
    for (i, want) in values.iter().enumerate() {
        for (j, have) in values.iter().enumerate() {
            let matching = HeadersMatch::all(of(&[("h", want.clone())]));
            assert_eq!(hits(&matching, &of(&[("h", have.clone())])), i == j, "{want:?} and {have:?}");
        }
    }
    let nan = of(&[("h", f64::NAN.into())]);
    assert!(!hits(&HeadersMatch::all(of(&[("h", 1.0.into())])), &nan));
}

#[test]
fn text_and_bytes_are_one_type_as_in_rabbitmq() {
    let (text, bytes) = (HeaderValue::from("ä"), HeaderValue::from(Bytes::from_static("ä".as_bytes())));
    for want in [&text, &bytes] {
        for have in [&text, &bytes] {
            assert!(hits(&HeadersMatch::all(of(&[("h", want.clone())])), &of(&[("h", have.clone())])));
        }
        assert!(!hits(&HeadersMatch::all(of(&[("h", want.clone())])), &of(&[("h", "a".into())])));
    }
}

#[test]
fn presence_is_asked_without_a_value() {
    let all = HeadersMatch::all(of(&[("a", 1.into())])).present("b");
    let any = HeadersMatch::any(of(&[("a", 1.into())])).present("b");
    let both = of(&[("a", 1.into()), ("b", f64::NAN.into())]);
    let only = of(&[("b", "".into())]);
    assert!(hits(&all, &both) && !hits(&all, &only) && hits(&any, &only));
    assert!(!hits(&any, &of(&[("c", 1.into())])));
}

#[test]
fn x_headers_count_only_when_asked() {
    let want = of(&[("x-a", 1.into()), ("a", 1.into())]);
    let plain = of(&[("a", 1.into())]);
    let x_only = of(&[("x-a", 1.into())]);
    assert!(hits(&HeadersMatch::all(want.clone()), &plain));
    assert!(!hits(&HeadersMatch::all(want.clone()).with_x(), &plain));
    assert!(hits(&HeadersMatch::all(want.clone()).with_x(), &want));
    assert!(!hits(&HeadersMatch::any(want.clone()), &x_only));
    assert!(hits(&HeadersMatch::any(want).with_x(), &x_only));
    // Nothing is left to match: as if empty.
    assert!(hits(&HeadersMatch::all(x_only.clone()), &Headers::new()));
    assert!(!hits(&HeadersMatch::any(x_only.clone()), &x_only));
    assert!(!hits(&HeadersMatch::any(Headers::new()).present("x-a"), &x_only));
    assert!(hits(&HeadersMatch::any(Headers::new()).present("x-a").with_x(), &x_only));
    // Only the prefix counts, in this case.
    assert!(hits(&HeadersMatch::any(of(&[("X-a", 1.into())])), &of(&[("X-a", 1.into())])));
}

#[test]
fn the_order_of_headers_makes_no_other_binding() {
    let one = HeadersMatch::all(of(&[("a", 1.into()), ("b", "x".into())])).present("p").present("q");
    let two = HeadersMatch::all(of(&[("b", "x".into()), ("a", 1.into())])).present("q").present("p");
    let bind = |m: &HeadersMatch| Binding::headers("x", "q", m.clone());
    let mut bindings = Bindings::new(ExchangeKind::Headers);
    assert!(bindings.bind(1, &bind(&one)).unwrap());
    assert!(!bindings.bind(1, &bind(&two)).unwrap());
    assert!(bindings.bind(1, &bind(&two.clone().with_x())).unwrap());
    let float = HeadersMatch::all(of(&[("a", 1.0.into()), ("b", "x".into())])).present("p").present("q");
    assert!(!bindings.unbind(&1, &bind(&float)));
    assert!(bindings.unbind(&1, &bind(&two)));
    assert_eq!(bindings.len(), 1);
}

#[test]
fn a_queue_with_two_bindings_that_match_gets_one_copy_in_its_place() {
    let mut bindings = Bindings::new(ExchangeKind::Headers);
    let all = |name: &str| Binding::headers("x", "q", HeadersMatch::all(Headers::new()).present(name));
    for (queue, name) in [(7, "a"), (3, "a"), (7, "b"), (5, "b")] {
        bindings.bind(queue, &all(name)).unwrap();
    }
    let both = of(&[("a", 1.into()), ("b", 1.into())]);
    assert_eq!(*bindings.route("", &both), [7, 3, 5]);
    bindings.unbind(&7, &all("a"));
    assert_eq!(*bindings.route("", &both), [7, 3, 5], "it is still the oldest");
    bindings.remove_queue(&7);
    bindings.bind(7, &all("a")).unwrap();
    assert_eq!(*bindings.route("", &both), [3, 5, 7], "it joined anew");
}

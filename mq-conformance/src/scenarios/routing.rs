//! Exchanges route as RabbitMQ does.

use mq_core::{
    Binding, ExchangeKind, ExchangeSpec, HeaderValue, Headers, HeadersMatch, Kind, Message, QueueSpec,
    Topology,
};

use crate::context::{Ctx, text};
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "routing";
    direct_routes_by_the_exact_key [Queues, Exchanges];
    fanout_reaches_every_queue [Queues, Exchanges];
    topic_star_is_exactly_one_word [Queues, Exchanges];
    topic_hash_is_zero_or_more_words [Queues, Exchanges];
    topic_empty_words_count [Queues, Exchanges];
    headers_all_and_any [Queues, Exchanges];
    headers_are_equal_by_type_and_value [Queues, Exchanges];
    headers_that_start_with_x_count_only_where_asked [Queues, Exchanges];
    headers_without_a_demand [Queues, Exchanges];
    one_copy_for_a_queue_however_many_bindings_match [Queues, Exchanges];
    what_matches_no_queue_is_told [Queues, Exchanges];
    mandatory_makes_an_unroutable_message_an_error [Queues, Exchanges];
    an_alternate_exchange_gets_what_matches_nothing [Queues, Exchanges];
    an_unbound_queue_gets_nothing_more [Queues, Exchanges];
    a_publish_to_a_missing_exchange_is_not_found [Exchanges];
    a_binding_needs_both_ends [Queues, Exchanges];
    a_hostile_pattern_costs_no_time [Queues, Exchanges];
}

/// An exchange with one queue for each pattern; publishes the keys and compares what each queue got.
async fn route(cx: &Ctx, kind: ExchangeKind, keys: &[&str], expected: &[(&str, &[&str])]) -> Outcome {
    let mut topology = Topology::new().exchange(ExchangeSpec::new("x", kind));
    for (n, (pattern, _)) in expected.iter().enumerate() {
        topology = topology.queue(QueueSpec::new(format!("q{n}"))).bind("x", format!("q{n}"), *pattern);
    }
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    for key in keys {
        cx.client.exchange("x").publish(key, format!("[{key}]")).await?;
    }
    for (n, (pattern, wanted)) in expected.iter().enumerate() {
        let wanted: Vec<_> = wanted.iter().map(|k| format!("[{k}]")).collect();
        let got = got(cx, &format!("q{n}"), wanted.len()).await?;
        check_eq!(got, sorted(wanted), "what `{pattern}` of {kind:?} received");
    }
    Ok(())
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort_unstable();
    list
}

/// All that a queue holds, sorted; waited for until it is as much as is wanted, and then until it is quiet.
async fn got(cx: &Ctx, queue: &str, wanted: usize) -> Outcome<Vec<String>> {
    let mut consumer = cx.client.queue(queue).consumer().open().await?;
    let texts = cx.all(&mut consumer, wanted).await?;
    consumer.close().await?;
    Ok(sorted(texts))
}

async fn direct_routes_by_the_exact_key(cx: Ctx) -> Outcome {
    let expected: &[(&str, &[&str])] = &[("a", &["a"]), ("a.b", &["a.b"]), ("*", &["*"]), ("", &[""])];
    route(&cx, ExchangeKind::Direct, &["a", "a.b", "A", "*", "", "#"], expected).await
}

async fn fanout_reaches_every_queue(cx: Ctx) -> Outcome {
    let all: &[&str] = &["a", "", "x.y"];
    route(&cx, ExchangeKind::Fanout, all, &[("a", all), ("", all), ("nothing", all)]).await
}

async fn topic_star_is_exactly_one_word(cx: Ctx) -> Outcome {
    let keys = &["a", "a.b", "a.b.c", "b", "b.a", "a.c.c"];
    let expected: &[(&str, &[&str])] = &[
        ("*", &["a", "b"]),
        ("a.*", &["a.b"]),
        ("*.a", &["b.a"]),
        ("a.*.c", &["a.b.c", "a.c.c"]),
        ("*.*.*", &["a.b.c", "a.c.c"]),
    ];
    route(&cx, ExchangeKind::Topic, keys, expected).await
}

async fn topic_hash_is_zero_or_more_words(cx: Ctx) -> Outcome {
    let keys = &["a", "a.b", "a.b.c", "b", "", "c.a"];
    let expected: &[(&str, &[&str])] = &[
        ("#", keys),
        ("a.#", &["a", "a.b", "a.b.c"]),
        ("#.a", &["a", "c.a"]),
        ("a.#.c", &["a.b.c"]),
        ("#.b.#", &["a.b", "a.b.c", "b"]),
        ("*.#", &["a", "a.b", "a.b.c", "b", "c.a"]),
    ];
    route(&cx, ExchangeKind::Topic, keys, expected).await
}

async fn topic_empty_words_count(cx: Ctx) -> Outcome {
    let keys = &["", "a..b", "a.", ".", "a.x.b"];
    let expected: &[(&str, &[&str])] =
        &[("a.*.b", &["a..b", "a.x.b"]), ("a..b", &["a..b"]), ("*.*", &["a.", "."]), ("#", keys), ("*", &[])];
    route(&cx, ExchangeKind::Topic, keys, expected).await
}

fn headers<const N: usize>(pairs: [(&str, HeaderValue); N]) -> Headers {
    pairs.into_iter().collect()
}

/// One queue for each demand; publishes messages with headers, and compares what each queue got.
async fn route_headers(
    cx: &Ctx,
    demands: Vec<(&str, HeadersMatch)>,
    messages: Vec<(&str, Headers)>,
    expected: &[&[&str]],
) -> Outcome {
    let mut topology = Topology::new().exchange(ExchangeSpec::headers("x"));
    for (n, (_, demand)) in demands.iter().enumerate() {
        let queue = format!("q{n}");
        topology =
            topology.queue(QueueSpec::new(&queue)).binding(Binding::headers("x", &queue, demand.clone()));
    }
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    for (name, headers) in messages {
        cx.client.exchange("x").publish("ignored", Message::text(name).with_headers(headers)).await?;
    }
    for (n, (what, _)) in demands.iter().enumerate() {
        let wanted = sorted(expected[n].iter().map(ToString::to_string).collect());
        let got = got(cx, &format!("q{n}"), wanted.len()).await?;
        check_eq!(got, wanted, "what `{what}` received");
    }
    Ok(())
}

async fn headers_all_and_any(cx: Ctx) -> Outcome {
    let two = || headers([("a", 1.into()), ("b", "x".into())]);
    let demands = vec![
        ("all", HeadersMatch::all(two())),
        ("any", HeadersMatch::any(two())),
        ("present", HeadersMatch::all(Headers::new()).present("a")),
        ("all and present", HeadersMatch::all(headers([("b", "x".into())])).present("a")),
    ];
    let messages = vec![
        ("both", two()),
        ("one", headers([("a", 1.into())])),
        ("other value", headers([("a", 2.into())])),
        ("none", Headers::new()),
        ("more", headers([("a", 1.into()), ("b", "x".into()), ("c", true.into())])),
        ("wrong a", headers([("a", 9.into()), ("b", "x".into())])),
    ];
    let expected: &[&[&str]] = &[
        &["both", "more"],
        &["both", "one", "more", "wrong a"],
        &["both", "one", "other value", "more", "wrong a"],
        &["both", "more", "wrong a"],
    ];
    route_headers(&cx, demands, messages, expected).await
}

async fn headers_are_equal_by_type_and_value(cx: Ctx) -> Outcome {
    let demands = vec![
        ("int 1", HeadersMatch::all(headers([("a", 1.into())]))),
        ("text 1", HeadersMatch::all(headers([("a", "1".into())]))),
        ("true", HeadersMatch::all(headers([("a", true.into())]))),
    ];
    let messages = vec![
        ("int", headers([("a", 1.into())])),
        ("text", headers([("a", "1".into())])),
        ("bool", headers([("a", true.into())])),
        ("case", headers([("A", 1.into())])),
    ];
    route_headers(&cx, demands, messages, &[&["int"], &["text"], &["bool"]]).await
}

async fn headers_that_start_with_x_count_only_where_asked(cx: Ctx) -> Outcome {
    let odd = || headers([("a", 1.into()), ("x-b", 2.into())]);
    let demands = vec![
        ("all", HeadersMatch::all(odd())),
        ("all with x", HeadersMatch::all(odd()).with_x()),
        ("any", HeadersMatch::any(headers([("x-b", 2.into())]))),
        ("any with x", HeadersMatch::any(headers([("x-b", 2.into())])).with_x()),
    ];
    let messages =
        vec![("a", headers([("a", 1.into())])), ("both", odd()), ("x", headers([("x-b", 2.into())]))];
    route_headers(&cx, demands, messages, &[&["a", "both"], &["both"], &[], &["both", "x"]]).await
}

async fn headers_without_a_demand(cx: Ctx) -> Outcome {
    let demands = vec![
        ("all of nothing", HeadersMatch::all(Headers::new())),
        ("any of nothing", HeadersMatch::any(Headers::new())),
    ];
    let messages = vec![("plain", Headers::new()), ("some", headers([("a", 1.into())]))];
    route_headers(&cx, demands, messages, &[&["plain", "some"], &[]]).await
}

async fn one_copy_for_a_queue_however_many_bindings_match(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(ExchangeSpec::topic("x"))
        .queue(QueueSpec::new("q"))
        .bind("x", "q", "#")
        .bind("x", "q", "a.*")
        .bind("x", "q", "a.b");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    cx.client.exchange("x").publish("a.b", "once").await?;
    check_eq!(got(&cx, "q", 1).await?, ["once"], "copies");
    Ok(())
}

async fn what_matches_no_queue_is_told(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(ExchangeSpec::direct("x"))
        .queue(QueueSpec::new("q"))
        .bind("x", "q", "known");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    let receipt = cx.client.exchange("x").publish("unknown", "dropped").await?;
    check!(
        receipt.routed.is_none(),
        "the receipt says {:?} for a message that matches nothing",
        receipt.routed
    );
    let receipt = cx.client.exchange("x").publish("known", "kept").await?;
    check!(!receipt.routed.is_none(), "the receipt says {:?} for a message that matches", receipt.routed);
    check_eq!(got(&cx, "q", 1).await?, ["kept"], "what the queue got");
    Ok(())
}

async fn mandatory_makes_an_unroutable_message_an_error(cx: Ctx) -> Outcome {
    let topology =
        Topology::new().exchange(ExchangeSpec::topic("x")).queue(QueueSpec::new("q")).bind("x", "q", "a.#");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    let exchange = cx.client.exchange("x").mandatory();
    let lost = Message::text("lost").with_id("the-lost-one");
    let error = check_kind!(exchange.publish("b", lost).await, Kind::Unroutable, "a mandatory publish");
    check!(error.to_string().contains("the-lost-one"), "the error does not name the message: {error}");
    check!(!error.is_unknown(), "an unroutable message is rejected, not unknown: {error}");
    exchange.publish("a.b", "kept").await?;
    check_eq!(got(&cx, "q", 1).await?, ["kept"], "what the queue got");
    Ok(())
}

async fn an_alternate_exchange_gets_what_matches_nothing(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(ExchangeSpec::direct("x").with_alternate("rest"))
        .exchange(ExchangeSpec::topic("rest"))
        .queue(QueueSpec::new("q"))
        .queue(QueueSpec::new("others"))
        .bind("x", "q", "a")
        .bind("rest", "others", "b.#");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    for key in ["a", "b.c", "c"] {
        cx.client.exchange("x").publish(key, key).await?;
    }
    check_eq!(got(&cx, "q", 1).await?, ["a"], "the exchange's own queue");
    check_eq!(got(&cx, "others", 1).await?, ["b.c"], "the alternate exchange routes by the same key");
    Ok(())
}

async fn an_unbound_queue_gets_nothing_more(cx: Ctx) -> Outcome {
    let binding = Binding::new("x", "q", "k");
    let topology = Topology::new()
        .exchange(ExchangeSpec::direct("x"))
        .queue(QueueSpec::new("q"))
        .binding(binding.clone());
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    cx.client.exchange("x").publish("k", "before").await?;
    cx.client.unbind(binding.clone()).await?;
    cx.topology_seen().await;
    cx.client.exchange("x").publish("k", "after").await?;
    check_eq!(got(&cx, "q", 1).await?, ["before"], "what the queue got");
    cx.client.unbind(binding).await?;
    Ok(())
}

async fn a_publish_to_a_missing_exchange_is_not_found(cx: Ctx) -> Outcome {
    let missing = cx.client.exchange("missing");
    check_kind!(missing.publish("k", "x").await, Kind::NotFound, "a publish to a missing exchange");
    Ok(())
}

async fn a_binding_needs_both_ends(cx: Ctx) -> Outcome {
    cx.queue("q").await?;
    cx.client.declare(Topology::new().exchange(ExchangeSpec::direct("x"))).await?;
    for (exchange, queue) in [("x", "missing"), ("missing", "q")] {
        let bound = cx.client.bind(Binding::new(exchange, queue, "k")).await;
        check_kind!(bound, Kind::NotFound, "binding `{queue}` to `{exchange}`");
    }
    Ok(())
}

/// Eight `#` against 32 words: a router that backtracks is busy for a third of a second with each message.
/// A broker may refuse a pattern with many `#`, and says so at the bind.
async fn a_hostile_pattern_costs_no_time(cx: Ctx) -> Outcome {
    let topology = |hostile| {
        let objects = Topology::new().exchange(ExchangeSpec::topic("x")).queue(QueueSpec::new("q"));
        objects.bind("x", "q", hostile)
    };
    if let Err(e) = cx.client.declare(topology("#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.z")).await {
        check_eq!(e.kind(), Kind::ConfigInvalid, "the refusal of a hostile pattern");
        cx.client.declare(topology("#.a.#.z")).await?;
    }
    cx.topology_seen().await;
    let exchange = cx.client.exchange("x");
    for n in 0..20 {
        let key = format!("{}.{n}", ["a"; 31].join("."));
        exchange.publish(&key, "unmatched").await?;
    }
    exchange.publish(&format!("{}.z", ["a"; 31].join(".")), "matched").await?;
    let mut consumer = cx.client.queue("q").consumer().open().await?;
    let delivery = cx.next(&mut consumer).await?;
    check_eq!(text(&delivery), "matched", "the only message that matches");
    delivery.ack().map_err(Failed::from)
}

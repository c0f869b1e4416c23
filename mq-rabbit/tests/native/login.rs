//! What is wrong with a login is told at once, for good, and without the password.

use mq_core::driver::Connection;
use mq_core::{Kind, Status};

use crate::harness::{Broker, connect};

crate::tests![a_wrong_password_is_permanent, a_missing_vhost_is_permanent, the_version_is_known];

async fn a_wrong_password_is_permanent(broker: Broker) {
    let e = connect(broker.config().with_credentials("guest", "hunter2")).await.unwrap_err();
    assert_eq!((e.kind(), e.status()), (Kind::Unauthenticated, Status::Permanent), "{e}");
    let mut shown = format!("{e} {e:?}");
    let mut source = std::error::Error::source(&e);
    while let Some(inner) = source {
        shown.push_str(&format!("{inner} {inner:?}"));
        source = inner.source();
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

async fn a_missing_vhost_is_permanent(broker: Broker) {
    let e = connect(broker.config().with_vhost("no such vhost")).await.unwrap_err();
    assert_eq!((e.kind(), e.status()), (Kind::NotFound, Status::Permanent), "{e}");
}

async fn the_version_is_known(broker: Broker) {
    let connection = broker.connect().await;
    let product = connection.info().product.clone();
    let expected = if broker.is_newest() { "RabbitMQ 4." } else { "RabbitMQ 3." };
    assert!(product.starts_with(expected), "{product}");
    connection.close().await.unwrap();
}

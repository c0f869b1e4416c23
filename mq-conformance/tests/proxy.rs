//! The fault proxy does what it says.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mq_conformance::proxy::{Fault, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const LONG: Duration = Duration::from_secs(20);

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn proxy() -> Proxy {
    Proxy::start(echo().await).await.unwrap()
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let work = async {
        let mut back = vec![0; bytes.len()];
        let (mut from, mut to) = stream.split();
        let (sent, read) = tokio::join!(to.write_all(bytes), from.read_exact(&mut back));
        sent?;
        read?;
        Ok(back)
    };
    timeout(LONG, work).await.expect("the round trip hangs")
}

fn data(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[tokio::test]
async fn it_forwards_every_byte() {
    let p = proxy().await;
    let bytes = data(300_000);
    assert_eq!(round_trip(&mut connect(&p).await, &bytes).await.unwrap(), bytes);
    assert_eq!((p.accepted(), p.forwarded()), (1, 600_000));
}

#[tokio::test]
async fn slices_and_throttles_change_no_byte() {
    let p = proxy().await;
    for fault in [Fault::Slice, Fault::Throttle(400_000)] {
        p.set(fault);
        let bytes = data(20_000);
        assert_eq!(round_trip(&mut connect(&p).await, &bytes).await.unwrap(), bytes, "{fault:?}");
    }
}

#[tokio::test]
async fn a_delay_is_at_least_what_it_says() {
    let p = proxy().await;
    let mut s = connect(&p).await;
    p.set(Fault::Delay(Duration::from_millis(50), Duration::from_millis(10)));
    let start = Instant::now();
    round_trip(&mut s, b"x").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(80), "twice at least 40 ms: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_cut_ends_open_connections_and_takes_new_ones() {
    let p = proxy().await;
    let mut old = connect(&p).await;
    round_trip(&mut old, b"before").await.unwrap();
    p.cut();
    let read = timeout(LONG, old.read(&mut [0; 8])).await.expect("the cut was not seen");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    round_trip(&mut connect(&p).await, b"after").await.unwrap();
}

#[tokio::test]
async fn a_cut_falls_into_the_middle_of_a_frame() {
    let p = proxy().await;
    let mut s = connect(&p).await;
    p.set(Fault::Throttle(20_000));
    let bytes = data(200_000);
    let cut = async {
        while p.forwarded() == 0 {
            tokio::task::yield_now().await;
        }
        p.cut();
    };
    let (sent, ()) = tokio::join!(round_trip(&mut s, &bytes), cut);
    assert!(sent.is_err());
    assert!(p.forwarded() > 0 && p.forwarded() < 200_000, "{}", p.forwarded());
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let p = proxy().await;
    let mut s = connect(&p).await;
    round_trip(&mut s, b"before").await.unwrap();
    p.reset();
    let read = timeout(LONG, s.read(&mut [0; 8])).await.expect("the reset was not seen");
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn refused_connections_end_at_once_and_open_ones_go_on() {
    let p = proxy().await;
    let mut old = connect(&p).await;
    round_trip(&mut old, b"open").await.unwrap();
    p.set(Fault::Refuse);
    if let Ok(mut new) = TcpStream::connect(p.address()).await {
        let read = timeout(LONG, new.read(&mut [0; 8])).await.expect("it was not refused");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    round_trip(&mut old, b"still open").await.unwrap();
    assert_eq!(p.accepted(), 2);
}

#[tokio::test]
async fn a_black_hole_swallows_until_it_is_healed() {
    let p = proxy().await;
    let mut s = connect(&p).await;
    round_trip(&mut s, b"before").await.unwrap();
    p.set(Fault::BlackHole);
    s.write_all(b"gone").await.unwrap();
    let silent = timeout(Duration::from_millis(200), s.read(&mut [0; 8])).await;
    assert!(silent.is_err(), "it answered: {silent:?}");
    p.heal();
    let read = timeout(LONG, s.read(&mut [0; 8])).await.expect("healing closes what lost bytes");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    round_trip(&mut connect(&p).await, b"after").await.unwrap();
}

#[tokio::test]
async fn it_stays_at_home() {
    assert!(Proxy::start("192.0.2.1:5672".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn what_is_held_back_comes_when_the_fault_is_over() {
    let p = proxy().await;
    let mut stream = connect(&p).await;
    round_trip(&mut stream, b"before").await.unwrap();
    p.set(Fault::Hold);
    let before = p.forwarded();
    stream.write_all(b"held").await.unwrap();
    let mut back = [0; 4];
    let early = timeout(Duration::from_millis(200), stream.read_exact(&mut back)).await;
    assert!(early.is_err() && p.forwarded() == before, "nothing may pass");
    p.heal();
    timeout(LONG, stream.read_exact(&mut back)).await.expect("it never came").unwrap();
    assert_eq!(&back, b"held");
}

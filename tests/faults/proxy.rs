//! The proxy itself: what the other tests believe of it.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::common::proxy::{Fault, Proxy};

/// A server that says everything again.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    address
}

/// Says `count` bytes and hears them again.
async fn talk(stream: &mut TcpStream, count: usize) -> io::Result<()> {
    let said: Vec<u8> = (0..=250).cycle().take(count).collect();
    let mut heard = vec![0; count];
    let (mut from, mut to) = stream.split();
    tokio::try_join!(to.write_all(&said), from.read_exact(&mut heard))?;
    assert_eq!(said, heard);
    Ok(())
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    let answer = timeout(Duration::from_millis(100), talk(stream, 10)).await;
    answer.is_err()
}

#[tokio::test]
async fn a_cut_or_reset_ends_connections_and_new_ones_until_it_is_healed() {
    let proxy = Proxy::before(&echo().await).await;
    for fault in [Fault::Cut, Fault::Reset] {
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        talk(&mut old, 100_000).await.unwrap();
        proxy.set(fault);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(talk(&mut old, 10).await.is_err());
        let refused = new.read(&mut [0]).await;
        match fault {
            Fault::Cut => assert_eq!(refused.unwrap(), 0),
            _ => assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionReset),
        }
        proxy.heal();
        assert!(talk(&mut old, 10).await.is_err());
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        talk(&mut new, 100_000).await.unwrap();
    }
}

#[tokio::test]
async fn what_falls_silent_stays_silent_and_new_connections_work_once_it_is_healed() {
    let proxy = Proxy::before(&echo().await).await;
    for fault in [Fault::Blackhole, Fault::HalfOpen] {
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        talk(&mut old, 10).await.unwrap();
        proxy.set(fault);
        assert!(is_silent(&mut old).await);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(is_silent(&mut new).await);
        proxy.heal();
        assert!(is_silent(&mut old).await);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        talk(&mut new, 10).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_stalled_arrives_late_and_slow_and_sliced_bytes_arrive_unharmed() {
    let proxy = Proxy::before(&echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    talk(&mut stream, 10).await.unwrap();
    proxy.set(Fault::Stall);
    stream.write_all(b"late").await.unwrap();
    let mut heard = [0; 4];
    let waiting = timeout(Duration::from_millis(100), stream.read_exact(&mut heard)).await;
    assert!(waiting.is_err());
    proxy.heal();
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"late");
    for fault in [Fault::Slow, Fault::Slice] {
        proxy.set(fault);
        talk(&mut stream, 50_000).await.unwrap();
    }
}

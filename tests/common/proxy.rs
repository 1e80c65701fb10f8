//! A TCP proxy that misbehaves when told to: a network's faults, without a network.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What the network does, to connections that are there and to new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Connections are closed; new ones too, at once.
    Cut,
    /// The same with a RST, as from a machine that has restarted.
    Reset,
    /// Bytes vanish, and so does what would end a connection: the server's side stays open as long as
    /// it lasts, the client's for ever. A new one is accepted, and silent.
    Blackhole,
    /// The server's side is closed, and the client is not told, ever; new ones are silent.
    HalfOpen,
    /// Bytes stand still, and arrive late when it is healed: a partition that TCP survives.
    Stall,
    /// A long way: 5 ms for each 16 KiB at most.
    Slow,
    /// Bytes arrive a few at a time.
    Slice,
}

impl Fault {
    pub const ALL: [Self; 7] = [
        Self::Cut,
        Self::Reset,
        Self::Blackhole,
        Self::HalfOpen,
        Self::Stall,
        Self::Slow,
        Self::Slice,
    ];

    /// Whether a connection ends with it.
    fn is_deadly(self) -> bool {
        matches!(
            self,
            Self::Cut | Self::Reset | Self::Blackhole | Self::HalfOpen
        )
    }

    /// How many bytes go at once, and how long they take.
    fn pace(fault: Option<Self>) -> (usize, Duration) {
        match fault {
            Some(Self::Slow) => (16 << 10, Duration::from_millis(5)),
            Some(Self::Slice) => (7, Duration::ZERO),
            _ => (BUFFER, Duration::ZERO),
        }
    }
}

const BUFFER: usize = 64 << 10;

type Current = watch::Receiver<Option<Fault>>;

/// A proxy; its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Option<Fault>>,
    accepting: AbortHandle,
}

impl Proxy {
    /// A proxy before `target` (`host:port`), on a port of its own.
    pub async fn before(target: &str) -> Self {
        Self::at("127.0.0.1:0", target).await
    }

    /// A proxy before `target` that listens on a certain address.
    pub async fn at(listen: &str, target: &str) -> Self {
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = watch::Sender::new(None);
        let accepting = tokio::spawn(accept(listener, target.to_owned(), fault.subscribe()));
        Self {
            address,
            fault,
            accepting: accepting.abort_handle(),
        }
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Begins a fault, in place of the one before.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(Some(fault));
    }

    /// Ends the fault, for new connections; see [`Fault`] for what becomes of the old ones.
    pub fn heal(&self) {
        self.fault.send_replace(None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: String, fault: Current) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (target, fault) = (target.clone(), fault.clone());
        // Either side may end a connection with an error: the other is then told by its end.
        connections.spawn(async move { drop(serve(client, &target, fault).await) });
        while connections.try_join_next().is_some() {}
    }
}

/// A connection from its beginning to its end.
async fn serve(mut client: TcpStream, target: &str, mut fault: Current) -> io::Result<()> {
    if let Some(now) = deadly(&fault) {
        return ended(client, None, now, fault).await;
    }
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let (up, down) = (fault.clone(), fault.clone());
        tokio::select! {
            biased; // nothing passes once the fault is there
            _ = fault.wait_for(|fault| fault.is_some_and(Fault::is_deadly)) => {}
            done = carry(from_client, to_server, up) => return done,
            done = carry(from_server, to_client, down) => return done,
        }
    }
    match deadly(&fault) {
        Some(now) => ended(client, Some(server), now, fault).await,
        None => Ok(()), // the proxy is dropped, or was healed in that moment
    }
}

fn deadly(fault: &Current) -> Option<Fault> {
    fault.borrow().filter(|fault| fault.is_deadly())
}

/// The end of a connection, by a fault.
async fn ended(
    client: TcpStream,
    server: Option<TcpStream>,
    fault: Fault,
    current: Current,
) -> io::Result<()> {
    match fault {
        Fault::Reset => {
            client.set_zero_linger()?;
            server.map_or(Ok(()), |server| server.set_zero_linger())
        }
        Fault::Blackhole => {
            let server = hold(server, current);
            tokio::join!(server, swallow(client)).1
        }
        Fault::HalfOpen => {
            drop(server);
            swallow(client).await
        }
        _ => Ok(()),
    }
}

/// Keeps the server's side open, and silent, as long as it is in a black hole.
async fn hold(server: Option<TcpStream>, mut current: Current) {
    if let Some(server) = server {
        tokio::select! {
            ended = swallow(server) => drop(ended),
            over = current.wait_for(|fault| *fault != Some(Fault::Blackhole)) => drop(over),
        }
    }
}

/// Keeps one side open, and silent, until that side ends it.
async fn swallow(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// One direction, as the fault that is not deadly has it.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut fault: Current,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let (most, _) = Fault::pace(*fault.borrow());
        let count = from.read(&mut buffer[..most]).await?;
        if count == 0 {
            return Ok(());
        }
        let moving = fault.wait_for(|fault| *fault != Some(Fault::Stall)).await;
        let (most, delay) = Fault::pace(moving.ok().and_then(|fault| *fault));
        for piece in buffer[..count].chunks(most) {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            to.write_all(piece).await?;
        }
    }
}

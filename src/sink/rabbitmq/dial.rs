//! Opening a connection, such that it can also be ended.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex},
};

use lapin::{
    Connection, ConnectionProperties, Error, ErrorKind,
    tcp::{AsyncTcpStream, RustlsConnector},
    types::LongString,
    uri::AMQPUri,
};
use tokio::time::timeout;

use super::{config::RabbitmqConfig, url::BrokerUrl};
use crate::lock::lock;

/// Opens a connection, with the URL and the certificates as they are in their files now.
///
/// # Errors
/// In words, with the remedy where one is known.
pub(super) async fn dial(
    config: &RabbitmqConfig,
    socket: &Socket,
    instance: &str,
) -> Result<Connection, String> {
    let url = config.url()?;
    let tls = if url.is_tls() {
        let connector = config.trusted()?.connector_with_no_client_auth();
        Some(connector.map_err(|error| error.to_string())?)
    } else {
        None
    };
    let connecting = Box::pin(connect(&url, tls, socket, instance));
    match timeout(url.connect_timeout(), connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("{url}: {error}{}", remedy(&error))),
        Err(_) => Err(format!("{url}: no answer in time")),
    }
}

async fn connect(
    url: &BrokerUrl,
    tls: Option<RustlsConnector>,
    socket: &Socket,
    instance: &str,
) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default()
        .with_connection_name(LongString::from(format!("outboxd/{instance}")))
        .with_client_property("product".into(), "outboxd".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let runtime = lapin::runtime::default_runtime()?;
    let (limit, slot, reactor) = (
        url.connect_timeout(),
        Arc::clone(&socket.0),
        runtime.clone(),
    );
    // lapin dials on a thread of its own, which nobody but this timeout ends. And it would log the
    // password (at trace) if it dialled by itself.
    let dial = async move |uri: AMQPUri, _| {
        let dialling = async {
            let host = uri.authority.host.as_str();
            let addresses = tokio::net::lookup_host((host, uri.authority.port)).await?;
            let addresses: Vec<_> = addresses.collect();
            let stream = AsyncTcpStream::connect(&reactor, addresses).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                let copy = plain.get_ref().as_fd().try_clone_to_owned()?;
                Socket::fill(&slot, copy.into())?;
            }
            match &tls {
                Some(tls) => stream.into_rustls(tls, host).await,
                None => Ok(stream),
            }
        };
        let stream = timeout(limit, dialling).await;
        let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        stream.map_err(Error::from)
    };
    Connection::connector(url.with_password(), runtime, dial, properties).await
}

fn remedy(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if amqp.get_id() == 403 => {
            "; check the user and the password in --rabbitmq-url"
        }
        ErrorKind::ProtocolError(amqp) if amqp.get_id() == 530 => {
            "; check the vhost in --rabbitmq-url and the user's permissions"
        }
        ErrorKind::IOError(io) if io.to_string().contains("UnknownIssuer") => {
            "; trust its CA with --rabbitmq-ca-file"
        }
        _ => "",
    }
}

/// The connection's socket, which is shut down when this is dropped. lapin has no hard end: it can
/// only ask the broker to close, and while the broker is silent or blocks us it neither does that
/// nor ends its thread.
#[derive(Default)]
pub(super) struct Socket(Arc<Mutex<SocketState>>);

#[derive(Default)]
enum SocketState {
    #[default]
    Dialling,
    Open(TcpStream),
    Cut,
}

impl Socket {
    fn fill(slot: &Mutex<SocketState>, stream: TcpStream) -> io::Result<()> {
        let mut state = lock(slot);
        if matches!(*state, SocketState::Cut) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *state = SocketState::Open(stream);
        Ok(())
    }

    pub(super) fn cut(&self) {
        let state = std::mem::replace(&mut *lock(&self.0), SocketState::Cut);
        if let SocketState::Open(stream) = state {
            // An error means that it is down already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.cut();
    }
}

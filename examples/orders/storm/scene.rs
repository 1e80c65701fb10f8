//! Where the programs of a leg run, and what they use.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};

use crate::common::{Failure, broker::Broker};

/// To find a free port.
const TRIES: u32 = 200;

/// Addresses and names.
pub struct Scene {
    pub broker: Broker,
    pub database_url: String,
    pub redis_url: Option<String>,
    /// Topic, or queue and exchange.
    pub destination: String,
    pub services: [SocketAddr; 2],
    /// A folder.
    pub logs: PathBuf,
}

impl Scene {
    pub fn new(
        broker: Broker,
        database_url: String,
        redis_url: Option<String>,
        destination: String,
        logs: PathBuf,
    ) -> Result<Self, Failure> {
        Ok(Self {
            broker,
            database_url,
            redis_url,
            destination,
            services: free_addresses()?,
            logs,
        })
    }
}

/// A free port out of the reach of outgoing connections: one of those could take it while its service
/// is dead.
fn free_address() -> Result<SocketAddr, Failure> {
    for _ in 0..TRIES {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..20_000)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port".into())
}

fn free_addresses() -> Result<[SocketAddr; 2], Failure> {
    let first = free_address()?;
    loop {
        let second = free_address()?;
        if second != first {
            return Ok([first, second]);
        }
    }
}

//! Where the programs of a leg run, and what they use.

use std::{net::SocketAddr, path::PathBuf};

use crate::common::{Failure, broker::Broker, relay::free_address};

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

fn free_addresses() -> Result<[SocketAddr; 2], Failure> {
    let first = free_address()?;
    loop {
        let second = free_address()?;
        if second != first {
            return Ok([first, second]);
        }
    }
}

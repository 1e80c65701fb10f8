//! Which partition librdkafka would choose for a key. Pure.

/// A way to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partitioner {
    /// As Java's clients: `murmur2`, `murmur2_random`.
    Murmur2,
    /// As librdkafka's clients unless told otherwise: `consistent`.
    Crc32,
}

impl Partitioner {
    /// By the option's value.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "murmur2" | "murmur2_random" => Some(Self::Murmur2),
            "consistent" => Some(Self::Crc32),
            _ => None,
        }
    }

    /// The partition of a key.
    pub(crate) fn partition(self, key: &[u8], partitions: i32) -> i32 {
        let count = partitions.max(1).unsigned_abs();
        let chosen = match self {
            Self::Murmur2 => (murmur2(key) & 0x7fff_ffff) % count,
            Self::Crc32 => crc32(key) % count,
        };
        chosen.cast_signed()
    }
}

fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

fn crc32(key: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in key {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let bit = crc & 1;
            crc = (crc >> 1) ^ (0xedb8_8320 & bit.wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_other_clients() {
        // Of Kafka's own tests.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}

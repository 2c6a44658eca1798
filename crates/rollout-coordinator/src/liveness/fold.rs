//! The hash of a table whose keys are ULIDs: their 80 random bits need no more than to be folded.
//!
//! Whoever chooses ids so that they collide has a certificate for each of them.

use std::hash::{BuildHasher, Hasher};

/// Builds the hash.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fold;

impl BuildHasher for Fold {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(0)
    }
}

/// Two odd numbers without a pattern (digits of pi): what they multiply differs in its high bits.
const ODD: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345];

/// The hash so far.
#[derive(Debug)]
pub(crate) struct Folded(u64);

impl Hasher for Folded {
    fn write_u128(&mut self, key: u128) {
        let [high, low] = [key >> 64, key & u128::from(u64::MAX)];
        let product = (high ^ u128::from(self.0 ^ ODD[0])) * (low ^ u128::from(ODD[1]));
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(16) {
            let mut key = [0; 16];
            key[..chunk.len()].copy_from_slice(chunk);
            self.write_u128(u128::from_ne_bytes(key));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use rollout_core::WorkerId;

    use super::*;

    #[test]
    fn ids_of_one_millisecond_and_ids_that_count_up_spread_over_the_whole_table() {
        let drawn = (0..4_096).map(|_| WorkerId::generate());
        let counted = (0..4_096u128).map(|n| WorkerId::from_bytes((n << 3).to_be_bytes()));
        for ids in [drawn.collect::<Vec<_>>(), counted.collect()] {
            let hashes: Vec<u64> = ids.iter().map(|id| Fold.hash_one(id)).collect();
            // The table takes the place from the low bits, and a tag from the highest seven.
            for (what, bits) in [("place", |hash: u64| hash & 0xff), ("tag", |hash| hash >> 57)]
                as [(&str, fn(u64) -> u64); 2]
            {
                let mut filled = [0u32; 256];
                for hash in &hashes {
                    filled[usize::try_from(bits(*hash)).unwrap()] += 1;
                }
                let worst = *filled.iter().max().unwrap();
                assert!(worst < 3 * 4_096 / 100, "{worst} of 4096 share a {what}");
            }
        }
    }
}

//! The Mersenne Twister with the classic 32-bit seeding.

/// Words of a generator's state.
pub const WORDS: usize = 624;
const AHEAD: usize = 397;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mt19937 {
    pub(super) words: [u32; WORDS],
    /// How many of `words` are used up.
    pub(super) used: usize,
}

impl Mt19937 {
    pub(super) fn seed(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for i in 1..WORDS {
            let last = words[i - 1];
            words[i] = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { words, used: WORDS }
    }

    #[inline]
    pub(super) fn next(&mut self) -> u32 {
        if self.used == WORDS {
            self.renew();
        }
        let mut word = self.words[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Uses up `count` words.
    pub(super) fn skip(&mut self, mut count: usize) {
        while count > WORDS - self.used {
            count -= WORDS - self.used;
            self.renew();
        }
        self.used += count;
    }

    fn renew(&mut self) {
        let words = &mut self.words;
        let twist = |high: u32, low: u32| {
            let joined = (high & 0x8000_0000) | (low & 0x7fff_ffff);
            (joined >> 1) ^ (0x9908_b0df & (low & 1).wrapping_neg())
        };
        for i in 0..WORDS - AHEAD {
            words[i] = words[i + AHEAD] ^ twist(words[i], words[i + 1]);
        }
        for i in WORDS - AHEAD..WORDS - 1 {
            words[i] = words[i + AHEAD - WORDS] ^ twist(words[i], words[i + 1]);
        }
        words[WORDS - 1] = words[AHEAD - 1] ^ twist(words[WORDS - 1], words[0]);
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_thousandth_word_is_the_standard_one() {
        // C++ [rand.predef]: the 10000th word of mt19937 with its default seed 5489 is 4123659995.
        let mut twister = Mt19937::seed(5489);
        twister.skip(9999);
        assert_eq!(twister.next(), 4_123_659_995);
    }
}

//! NumPy's legacy random state, bit for bit: MT19937 and `RandomState.shuffle`.
//!
//! Sources: `numpy/random/src/mt19937/mt19937.c`, `numpy/random/src/distributions/distributions.c`
//! (`random_interval`) and `RandomState.shuffle` in `numpy/random/mtrand.pyx`. `Generator`, which newer code
//! uses, is another algorithm.

use std::hint::black_box;

/// Words of state.
const N: usize = 624;
/// Distance of the recurrence.
const M: usize = 397;
/// Draws of a shuffle that are made ahead of their swaps.
const BLOCK: usize = 256;

/// `numpy.random.RandomState(seed)`.
#[derive(Clone, Debug)]
pub struct RandomState {
    key: [u32; N],
    /// What the key gives, tempered.
    outputs: [u32; N],
    pos: usize,
}

impl RandomState {
    /// Seeds as NumPy does for a whole number (`init_genrand`, not `init_by_array`).
    pub fn new(seed: u32) -> Self {
        let mut key = [0; N];
        let mut word = seed;
        for (i, slot) in (1..).zip(&mut key) {
            *slot = word;
            word = 1_812_433_253_u32
                .wrapping_mul(word ^ (word >> 30))
                .wrapping_add(i);
        }
        Self {
            key,
            outputs: [0; N],
            pos: N,
        }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.pos == N {
            self.twist();
        }
        self.pos += 1;
        self.outputs[self.pos - 1]
    }

    /// The next 64 random bits; the first draw is the high half.
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        (high << 32) | u64::from(self.next_u32())
    }

    /// A number drawn uniformly from 0 … `max`, both included: masked rejection, no draw for `max` = 0.
    pub fn interval(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0;
        }
        let mask = u64::MAX >> max.leading_zeros();
        loop {
            let narrow = u32::try_from(max).is_ok();
            let value = if narrow {
                u64::from(self.next_u32())
            } else {
                self.next_u64()
            };
            if value & mask <= max {
                return value & mask;
            }
        }
    }

    /// Shuffles in place: Fisher–Yates from the end, also drawing where an item stays.
    ///
    /// A large array does not fit the caches, and each swap would wait for memory. So a block of draws is made
    /// ahead and all its targets are read, which the processor does side by side; then they are swapped.
    pub fn shuffle<T: Copy>(&mut self, items: &mut [T]) {
        let mut draws = [0; BLOCK];
        let mut n_left = items.len();
        while n_left > 1 {
            let n = self.draw(n_left - 1, &mut draws);
            for &draw in &draws[..n] {
                black_box(items[draw]);
            }
            for &draw in &draws[..n] {
                n_left -= 1;
                items.swap(n_left, draw);
            }
        }
    }

    /// Makes the draws of [`Self::shuffle`] for `len` items, and leaves it at that.
    pub fn skip_shuffle(&mut self, len: usize) {
        let mut draws = [0; BLOCK];
        let mut n_left = len;
        while n_left > 1 {
            n_left -= self.draw(n_left - 1, &mut draws);
        }
    }

    /// Draws from the intervals 0 … `max`, 0 … `max` − 1 and so on, down to 0 … 1 at most; gives their number.
    fn draw(&mut self, max: usize, draws: &mut [usize; BLOCK]) -> usize {
        // Beyond 32 bits each draw takes two words.
        if u32::try_from(max).is_err() {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a draw is at most max, a usize"
            )]
            let draw = self.interval(max as u64) as usize;
            draws[0] = draw;
            return 1;
        }
        let mask = usize::MAX >> max.leading_zeros();
        // As long as the mask stays the same, and the block lasts.
        let lowest = (mask >> 1) + 1;
        let wanted = (max + 1 - lowest).min(BLOCK);
        let mut n = 0;
        while n < wanted {
            if self.pos == N {
                self.twist();
            }
            let mut used = 0;
            for &output in &self.outputs[self.pos..] {
                let draw = output as usize & mask;
                draws[n] = draw;
                used += 1;
                // No branch: whether a draw is taken cannot be foretold.
                n += usize::from(draw <= max - n);
                if n == wanted {
                    break;
                }
            }
            self.pos += used;
        }
        n
    }

    fn twist(&mut self) {
        const UPPER: u32 = 0x8000_0000;
        let next = |this: u32, following: u32, far: u32| {
            let y = (this & UPPER) | (following & !UPPER);
            far ^ (y >> 1) ^ ((y & 1) * 0x9908_b0df)
        };
        let key = &mut self.key;
        // Without a remainder in the index, the loops compile to vector instructions.
        for i in 0..N - M {
            key[i] = next(key[i], key[i + 1], key[i + M]);
        }
        for i in N - M..N - 1 {
            key[i] = next(key[i], key[i + 1], key[i + M - N]);
        }
        key[N - 1] = next(key[N - 1], key[0], key[M - 1]);
        for (output, word) in self.outputs.iter_mut().zip(key) {
            let mut y = *word;
            y ^= y >> 11;
            y ^= (y << 7) & 0x9d2c_5680;
            y ^= (y << 15) & 0xefc6_0000;
            *output = y ^ (y >> 18);
        }
        self.pos = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_is_its_draws_one_by_one() {
        for len in [0, 1, 2, 3, 255, 256, 257, 1000, 5000] {
            let mut plain: Vec<usize> = (0..len).collect();
            let mut random = RandomState::new(5);
            for i in (1..len).rev() {
                let draw = usize::try_from(random.interval(i as u64)).unwrap();
                plain.swap(i, draw);
            }
            let after = random.next_u32();

            let mut blocks: Vec<usize> = (0..len).collect();
            let mut random = RandomState::new(5);
            random.shuffle(&mut blocks);
            assert_eq!(blocks, plain);
            assert_eq!(random.next_u32(), after);

            let mut random = RandomState::new(5);
            random.skip_shuffle(len);
            assert_eq!(random.next_u32(), after);
        }
    }
}

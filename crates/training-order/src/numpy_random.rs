//! NumPy's legacy random state, bit for bit: MT19937 and `RandomState.shuffle`.
//!
//! Sources: `numpy/random/src/mt19937/mt19937.c`, `numpy/random/src/distributions/distributions.c`
//! (`random_interval`) and `RandomState.shuffle` in `numpy/random/mtrand.pyx`. `Generator`, which newer code
//! uses, is another algorithm.

/// Words of state.
const N: usize = 624;
/// Distance of the recurrence.
const M: usize = 397;

/// `numpy.random.RandomState(seed)`.
#[derive(Clone, Debug)]
pub struct RandomState {
    key: [u32; N],
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
        Self { key, pos: N }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.pos == N {
            self.twist();
        }
        let mut y = self.key[self.pos];
        self.pos += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
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
            let value = if u32::try_from(max).is_ok() {
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
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            // The draw is at most i, which is a usize.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a usize has at most 64 bits"
            )]
            let j = self.interval(i as u64) as usize;
            items.swap(i, j);
        }
    }

    fn twist(&mut self) {
        const UPPER: u32 = 0x8000_0000;
        for i in 0..N {
            let y = (self.key[i] & UPPER) | (self.key[(i + 1) % N] & !UPPER);
            let odd = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.key[i] = self.key[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.pos = 0;
    }
}

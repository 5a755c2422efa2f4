//! Matrix products in f32 on AMX, the matrix unit of Intel's processors since Sapphire Rapids.
//!
//! It multiplies bf16, 8 bits of f32's 24, and adds up in f32. A number is therefore split into three of 8 bits, x = high +
//! middle + low, which loses nothing, and of the nine products the six largest are taken; what is left out is below f32's own
//! resolution (Henry, Tang and Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
//! Computations"). Sums are those of the unit: 32 products at a time, which rounds less than one product after another.
//!
//! High parts alone take a sixth of the time. They say which outputs can be the largest, by a bound on what they leave out.

use half::bf16;
use std::array;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows and columns that are multiplied at once, and products that are added up at once.
pub(crate) const SIDE: usize = 32;
/// Longest sum that is taken at once: what belongs to 256 rows then fits in the second cache, 2 MB.
const LONGEST: usize = 768;
/// Numbers of a matrix that are kept split in the second cache.
const N_KEPT: usize = 256 * LONGEST;

/// That this processor has AMX, and that the system lets this process use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// Asks the system for AMX.
    pub(crate) fn get() -> Option<Self> {
        unit::is_granted().then_some(Self(()))
    }
}

/// `SIDE` numbers of each of `SIDE` rows, as the unit reads them: 16 rows of 32 numbers make a tile; two tiles of high parts,
/// two of middle and two of low ones. Of weights, rows are outputs, and a tile has them as columns, by pairs of numbers.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Block([[u16; 512]; 6]);

impl Block {
    const ZERO: Self = Self([[0; 512]; 6]);
}

/// Products of `SIDE` rows and `SIDE` columns.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[f32; SIDE]; SIDE]);

/// What is done with products.
pub(crate) trait Sink {
    /// Takes the products of these rows and outputs, which may be fewer than the tile has.
    fn take(&mut self, rows: Range<usize>, outputs: Range<usize>, tile: &mut Tile);
}

/// The weights of a linear layer, split: 6 bytes each.
#[derive(Debug)]
pub(crate) struct Weights {
    amx: Amx,
    n_in: usize,
    n_out: usize,
    /// `[n_out / SIDE, n_in / SIDE]`
    blocks: Vec<Block>,
    /// No less than the Euclidean norm of each output's weights; 0 behind the last, to whole blocks.
    norms: Vec<f32>,
    /// No less than the share of its norm that any output's weights lose to high parts.
    lost: f32,
}

impl Weights {
    /// From the file's order, `[n_out, n_in]`.
    pub(crate) fn new(amx: Amx, rows: &[f32], [n_out, n_in]: [usize; 2]) -> Self {
        let n_blocks = n_in.div_ceil(SIDE);
        let mut blocks = vec![Block::ZERO; n_out.div_ceil(SIDE) * n_blocks];
        let mut norms = vec![0.0; n_out.next_multiple_of(SIDE)];
        let mut lost = 0.0_f32;
        for (output, row) in rows.chunks_exact(n_in).enumerate() {
            let size = Size::of(row);
            norms[output] = size.norm;
            lost = lost.max(size.lost / size.norm);
            let column = output % SIDE;
            let blocks = &mut blocks[output / SIDE * n_blocks..][..n_blocks];
            for (numbers, block) in row.chunks(SIDE).zip(blocks) {
                for (part, numbers) in unit::split(amx, &padded(numbers)).iter().enumerate() {
                    let tile = &mut block.0[2 * part + column / 16];
                    for (pair, numbers) in numbers.chunks_exact(2).enumerate() {
                        tile[pair * 32 + column % 16 * 2..][..2].copy_from_slice(numbers);
                    }
                }
            }
        }
        Self {
            amx,
            n_in,
            n_out,
            blocks,
            norms,
            lost,
        }
    }

    /// Numbers that are read of each row.
    pub(crate) fn n_in(&self) -> usize {
        self.n_in
    }

    /// Numbers that are made of each row.
    pub(crate) fn n_out(&self) -> usize {
        self.n_out
    }

    /// x · weights + bias: `[m, n_in]` → `[m, n_out]`
    pub(crate) fn linear(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let n = x.len() / self.n_in * self.n_out;
        let mut sums = Vec::with_capacity(n);
        let n_parts = self.n_in.div_ceil(LONGEST);
        let length = self.n_in.div_ceil(n_parts).next_multiple_of(SIDE);
        let mut written = Written {
            sums: &mut sums.spare_capacity_mut()[..n],
            count: 0,
            n_out: self.n_out,
            bias,
        };
        unit::multiply(self.amx, self, x, 0..length.min(self.n_in), &mut written);
        assert_eq!(
            written.count, n,
            "every row's product with every output, once"
        );
        #[expect(
            unsafe_code,
            reason = "memory that will be written whole need not be cleared first"
        )]
        // SAFETY: all n numbers were written.
        unsafe {
            sums.set_len(n);
        }
        for first in (length..self.n_in).step_by(length) {
            let mut added = Added {
                sums: &mut sums,
                n_out: self.n_out,
            };
            unit::multiply(
                self.amx,
                self,
                x,
                first..self.n_in.min(first + length),
                &mut added,
            );
        }
        sums
    }

    /// Gives `sink` the products of high parts: of all of x's rows, `[m, n_in]`, with all outputs.
    pub(crate) fn high_products(&self, x: &[f32], sink: &mut impl Sink) {
        unit::multiply_high(self.amx, self, x, sink);
    }

    /// How far a row's product with an output is at most from that of their high parts, for each unit of the output's norm: |Σ xw − Σ
    /// hₓh| ≤ ‖x − hₓ‖ · ‖w‖ + ‖hₓ‖ · ‖w − h‖ (Cauchy and Schwarz), and what the sum of n numbers in f32 rounds off.
    pub(crate) fn radius(&self, row: &[f32]) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "a length of rows")]
        let rounded = self.n_in as f32 * f32::EPSILON;
        let size = Size::of(row);
        1.001 * (size.lost + size.norm * 1.01 * (self.lost + rounded))
    }

    /// No less than the norm of each output's weights; 0 behind the last, to a whole tile.
    pub(crate) fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// A row's product with one output, summed in f64.
    pub(crate) fn product(&self, row: &[f32], output: usize) -> f32 {
        let column = output % SIDE;
        let of_part = |block: &Block, part: usize, place: usize| {
            let tile = &block.0[2 * part + column / 16];
            let bits = tile[place / 2 * 32 + column % 16 * 2 + place % 2];
            f32::from_bits(u32::from(bits) << 16)
        };
        let blocks = self.blocks(output / SIDE, &(0..self.n_in));
        let products = row.chunks(SIDE).zip(blocks).flat_map(|(numbers, block)| {
            numbers.iter().enumerate().map(move |(place, number)| {
                let [high, middle, low] = [0, 1, 2].map(|part| of_part(block, part, place));
                f64::from(*number) * f64::from(high + (middle + low))
            })
        });
        #[expect(clippy::cast_possible_truncation, reason = "a number in f32")]
        let sum = products.sum::<f64>() as f32;
        sum
    }

    /// Blocks of `SIDE` outputs and these inputs.
    fn blocks(&self, outputs: usize, inputs: &Range<usize>) -> &[Block] {
        let n_blocks = self.n_in.div_ceil(SIDE);
        &self.blocks[outputs * n_blocks..][inputs.start / SIDE..inputs.end.div_ceil(SIDE)]
    }
}

/// Of some numbers, no less than
struct Size {
    /// their Euclidean norm,
    norm: f32,
    /// and that of what their high parts leave out.
    lost: f32,
}

impl Size {
    fn of(numbers: &[f32]) -> Self {
        let norm = |squares: f32| squares.sqrt() * 1.001;
        let lost = |number: &f32| (number - bf16::from_f32(*number).to_f32()).powi(2);
        Self {
            // More than 0, for what is divided by it.
            norm: norm(numbers.iter().map(|number| number * number).sum()) + 1e-18,
            lost: norm(numbers.iter().map(lost).sum()),
        }
    }
}

/// Zeros behind what is no whole block.
#[inline(always)]
fn padded(numbers: &[f32]) -> [f32; SIDE] {
    let mut whole = [0.0; SIDE];
    whole[..numbers.len()].copy_from_slice(numbers);
    whole
}

/// Writes sums to memory that holds nothing yet.
struct Written<'a> {
    /// `[m, n_out]`
    sums: &'a mut [MaybeUninit<f32>],
    count: usize,
    n_out: usize,
    bias: Option<&'a [f32]>,
}

impl Sink for Written<'_> {
    #[inline(always)]
    fn take(&mut self, rows: Range<usize>, outputs: Range<usize>, tile: &mut Tile) {
        let mut bias = [0.0; SIDE];
        if let Some(all) = self.bias {
            bias[..outputs.len()].copy_from_slice(&all[outputs.clone()]);
        }
        for (row, products) in rows.zip(&tile.0) {
            let sums = &mut self.sums[row * self.n_out..][outputs.clone()];
            self.count += sums.len();
            // Of known length it compiles to vector instructions.
            if let Ok(sums) = <&mut [_; SIDE]>::try_from(&mut *sums) {
                *sums = array::from_fn(|i| MaybeUninit::new(products[i] + bias[i]));
            } else {
                for ((sum, product), bias) in sums.iter_mut().zip(products).zip(&bias) {
                    sum.write(product + bias);
                }
            }
        }
    }
}

/// Adds to sums.
struct Added<'a> {
    /// `[m, n_out]`
    sums: &'a mut [f32],
    n_out: usize,
}

impl Sink for Added<'_> {
    #[inline(always)]
    fn take(&mut self, rows: Range<usize>, outputs: Range<usize>, tile: &mut Tile) {
        for (row, products) in rows.zip(&tile.0) {
            let sums = &mut self.sums[row * self.n_out..][outputs.clone()];
            if let Ok(sums) = <&mut [_; SIDE]>::try_from(&mut *sums) {
                *sums = array::from_fn(|i| sums[i] + products[i]);
            } else {
                for (sum, product) in sums.iter_mut().zip(products) {
                    *sum += product;
                }
            }
        }
    }
}

/// What only this processor can do.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[expect(
    unsafe_code,
    reason = "the compiler has no stable name for AMX's instructions, and must be told which vector instructions there are"
)]
mod unit {
    use super::{Amx, Block, N_KEPT, SIDE, Sink, Tile, Weights, padded};
    use std::arch::asm;
    use std::arch::x86_64::{
        __cpuid_count, __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_castsi512_ps,
        _mm512_castsi512_si256, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
        _mm512_extracti64x4_epi64, _mm512_loadu_ps, _mm512_slli_epi32, _mm512_storeu_si512,
        _mm512_sub_ps,
    };
    use std::cell::Cell;
    use std::mem::transmute;
    use std::ops::Range;

    thread_local! {
        /// Room for rows that are split, which is not cleared for each product.
        static KEPT: Cell<Vec<Block>> = const { Cell::new(Vec::new()) };
    }

    /// Whether processor and system both let us.
    pub(super) fn is_granted() -> bool {
        // From Linux's arch/x86/include/uapi/asm/prctl.h, and the number of the state that holds tiles.
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILE_DATA: libc::c_long = 18;
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16");
        if !vectors || __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) != AMX_BF16 | AMX_TILE {
            return false;
        }
        // SAFETY: a system call that takes two numbers, and fails where it knows them not.
        unsafe {
            libc::syscall(
                libc::SYS_arch_prctl,
                ARCH_REQ_XCOMP_PERM,
                XFEATURE_XTILE_DATA,
            ) == 0
        }
    }

    /// High, middle and low parts, in bf16.
    pub(super) fn split(_: Amx, numbers: &[f32; SIDE]) -> [[u16; SIDE]; 3] {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { split_here(numbers) }
    }

    /// Gives `sink` the products of x's rows and all outputs, summed over some inputs, which begin at a block's.
    pub(super) fn multiply(
        _: Amx,
        weights: &Weights,
        x: &[f32],
        inputs: Range<usize>,
        sink: &mut impl Sink,
    ) {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { multiply_here::<false>(weights, x, inputs, sink) }
    }

    /// The same of high parts, and of all inputs.
    pub(super) fn multiply_high(_: Amx, weights: &Weights, x: &[f32], sink: &mut impl Sink) {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { multiply_here::<true>(weights, x, 0..weights.n_in, sink) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn split_here(numbers: &[f32; SIDE]) -> [[u16; SIDE]; 3] {
        let mut parts = [[0; SIDE]; 3];
        // SAFETY: 16 numbers are read from each half of 32; what is written is as long as what it is written to.
        unsafe {
            let numbers = numbers.as_ptr();
            let mut rest = [_mm512_loadu_ps(numbers), _mm512_loadu_ps(numbers.add(16))];
            for part in &mut parts {
                let rounded: __m512i = transmute(_mm512_cvtne2ps_pbh(rest[1], rest[0]));
                _mm512_storeu_si512(part.as_mut_ptr().cast(), rounded);
                let halves = [
                    _mm512_castsi512_si256(rounded),
                    _mm512_extracti64x4_epi64::<1>(rounded),
                ];
                for (rest, half) in rest.iter_mut().zip(halves) {
                    let wide = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half));
                    *rest = _mm512_sub_ps(*rest, _mm512_castsi512_ps(wide));
                }
            }
        }
        parts
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn multiply_here<const HIGH: bool>(
        weights: &Weights,
        x: &[f32],
        inputs: Range<usize>,
        sink: &mut impl Sink,
    ) {
        let n_rows = x.len() / weights.n_in;
        let n_blocks = inputs.len().div_ceil(SIDE);
        let n_panels = weights.n_out.div_ceil(SIDE);
        let most = (N_KEPT / (n_blocks * SIDE)).max(SIDE);
        // Stretches of about the same length.
        let n_kept = n_rows
            .div_ceil(n_rows.div_ceil(most).max(1))
            .next_multiple_of(SIDE);
        let mut room = KEPT.take();
        let n = n_kept.div_ceil(SIDE) * n_blocks;
        if room.len() < n {
            room.resize(n, Block::ZERO);
        }
        let mut tile = Tile([[0.0; SIDE]; SIDE]);
        let _configured = Configured::new();
        for first in (0..n_rows).step_by(n_kept.max(1)) {
            let end = n_rows.min(first + n_kept);
            split_rows(
                &x[first * weights.n_in..end * weights.n_in],
                weights.n_in,
                &inputs,
                &mut room,
            );
            let kept = &room[..(end - first).div_ceil(SIDE) * n_blocks];
            let n_ahead = n_blocks.div_ceil(kept.len() / n_blocks);
            for panel in 0..n_panels {
                let outputs = panel * SIDE..weights.n_out.min((panel + 1) * SIDE);
                let here = weights.blocks(panel, &inputs);
                // What comes next is brought to the second cache meanwhile.
                let mut ahead = weights
                    .blocks((panel + 1) % n_panels, &inputs)
                    .chunks(n_ahead);
                for (place, rows) in kept.chunks_exact(n_blocks).enumerate() {
                    let ahead = ahead.next().unwrap_or_default();
                    if HIGH {
                        multiply_high_blocks(rows, here, ahead, &mut tile);
                    } else {
                        multiply_blocks(rows, here, ahead, &mut tile);
                    }
                    let row = first + place * SIDE;
                    sink.take(row..end.min(row + SIDE), outputs.clone(), &mut tile);
                }
            }
        }
        KEPT.set(room);
    }

    /// Splits these inputs of x's rows, `[m, n_in]`; rows that a block has beyond them keep what they held.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn split_rows(x: &[f32], n_in: usize, inputs: &Range<usize>, blocks: &mut [Block]) {
        let n_blocks = inputs.len().div_ceil(SIDE);
        for (row, numbers) in x.chunks_exact(n_in).enumerate() {
            let blocks = &mut blocks[row / SIDE * n_blocks..][..n_blocks];
            let (tile, row) = (row % SIDE / 16, row % 16);
            for (numbers, block) in numbers[inputs.clone()].chunks(SIDE).zip(blocks) {
                let parts = match numbers.try_into() {
                    Ok(whole) => split_here(whole),
                    Err(_) => split_here(&padded(numbers)),
                };
                for (part, numbers) in parts.iter().enumerate() {
                    block.0[2 * part + tile][row * 32..][..32].copy_from_slice(numbers);
                }
            }
        }
    }

    /// Eight tiles of 16 rows of 64 bytes, for as long as this lives.
    #[repr(C, align(64))]
    struct Configured {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    impl Configured {
        fn new() -> Self {
            let used = |tile: usize| u8::from(tile < 8);
            let configured = Self {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                row_bytes: std::array::from_fn(|tile| 64 * u16::from(used(tile))),
                rows: std::array::from_fn(|tile| 16 * used(tile)),
            };
            // SAFETY: reads the 64 bytes of a configuration that AMX allows.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const configured, options(nostack, readonly));
            }
            configured
        }
    }

    impl Drop for Configured {
        fn drop(&mut self) {
            // SAFETY: gives up what tiles hold, which nobody reads any more. Otherwise it would be kept whenever threads change.
            unsafe {
                asm!("tilerelease", options(nostack, nomem));
            }
        }
    }

    /// A tile of products, summed over all blocks by the given lines for one block, which take rows to tmm4 and tmm5, outputs to tmm6 and tmm7, and
    /// add to tmm0 to tmm3.
    macro_rules! sum_of_blocks {
        ($rows:ident, $outputs:ident, $tile:ident, [$($line:literal,)*], $($operand:tt)*) => {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                $($line,)*
                "add {rows}, 6144",
                "add {outputs}, 6144",
                "dec {n_blocks}",
                "jnz 2b",
                "tilestored [{tile} + {tile_row}], tmm0",
                "tilestored [{tile} + {tile_row} + 64], tmm1",
                "tilestored [{tile} + {tile_row} + 2048], tmm2",
                "tilestored [{tile} + {tile_row} + 2112], tmm3",
                rows = inout(reg) $rows.as_ptr() => _,
                outputs = inout(reg) $outputs.as_ptr() => _,
                n_blocks = inout(reg) $rows.len() => _,
                tile = in(reg) &raw mut *$tile,
                row = in(reg) 64_usize,
                tile_row = in(reg) 128_usize,
                $($operand)*
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            )
        };
    }

    /// One tile of products of rows and outputs, summed over all blocks; `ahead` is fetched to the second cache.
    ///
    /// Of the parts, the order is high · low, high · middle, middle · middle, middle · high, high · high, low · high, so that only one of
    /// both factors changes from product to product.
    fn multiply_blocks(rows: &[Block], outputs: &[Block], ahead: &[Block], tile: &mut Tile) {
        assert!(rows.len() == outputs.len() && !rows.is_empty());
        let n_lines = (size_of_val(ahead) / 64).div_ceil(rows.len());
        // SAFETY: of each block its 6,144 bytes are read, and as many as there are; the 4,096 bytes of the tile are written, in rows
        // of 128. Fetching ahead does nothing where there is no memory. Tiles are configured, as `multiply_here` alone calls this.
        unsafe {
            sum_of_blocks!(
                rows,
                outputs,
                tile,
                [
                    "tileloadd tmm4, [{rows} + {row}]",
                    "tileloadd tmm6, [{outputs} + {row} + 4096]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{outputs} + {row} + 5120]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{rows} + {row} + 1024]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm6, [{outputs} + {row} + 2048]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{outputs} + {row} + 3072]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm4, [{rows} + {row} + 2048]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{rows} + {row} + 3072]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm6, [{outputs} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{outputs} + {row} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm4, [{rows} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{rows} + {row} + 1024]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm4, [{rows} + {row} + 4096]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{rows} + {row} + 5120]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "mov {left}, {n_lines}",
                    "test {left}, {left}",
                    "jz 4f",
                    "3:",
                    "prefetcht1 [{ahead}]",
                    "add {ahead}, 64",
                    "dec {left}",
                    "jnz 3b",
                    "4:",
                ],
                ahead = inout(reg) ahead.as_ptr() => _,
                n_lines = in(reg) n_lines,
                left = out(reg) _,
            );
        }
    }

    /// The same of high parts.
    fn multiply_high_blocks(rows: &[Block], outputs: &[Block], ahead: &[Block], tile: &mut Tile) {
        assert!(rows.len() == outputs.len() && !rows.is_empty());
        for block in ahead {
            for line in block.0[..2].as_flattened().chunks_exact(32) {
                // SAFETY: fetching does nothing else.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
            }
        }
        // SAFETY: as in `multiply_blocks`, of each block the first 2,048 bytes.
        unsafe {
            sum_of_blocks!(
                rows,
                outputs,
                tile,
                [
                    "tileloadd tmm4, [{rows} + {row}]",
                    "tileloadd tmm6, [{outputs} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{outputs} + {row} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{rows} + {row} + 1024]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                ],
            );
        }
    }
}

/// There is no AMX.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod unit {
    use super::{Amx, SIDE, Sink, Weights};
    use std::ops::Range;

    pub(super) fn is_granted() -> bool {
        false
    }

    pub(super) fn split(_: Amx, _: &[f32; SIDE]) -> [[u16; SIDE]; 3] {
        unreachable!("nobody can have an `Amx`")
    }

    pub(super) fn multiply(_: Amx, _: &Weights, _: &[f32], _: Range<usize>, _: &mut impl Sink) {
        unreachable!("nobody can have an `Amx`")
    }

    pub(super) fn multiply_high(_: Amx, _: &Weights, _: &[f32], _: &mut impl Sink) {
        unreachable!("nobody can have an `Amx`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Beside f64's, and no further from it than sums in f32, number by number, may be: the products' magnitudes times their
    /// resolution.
    fn is_the_product(n_rows: usize, n_in: usize, n_out: usize, seed: f32) {
        let Some(amx) = Amx::get() else {
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let numbers = |n: usize, of: f32| -> Vec<f32> {
            (0..n)
                .map(|i| {
                    ((i as f32 + seed) * of).sin()
                        * 10_f32.powi(i32::try_from(i % 7).unwrap_or(0) - 3)
                })
                .collect()
        };
        let x = numbers(n_rows * n_in, 0.731);
        let rows = numbers(n_out * n_in, 0.377);
        let bias = numbers(n_out, 1.3);
        let weights = Weights::new(amx, &rows, [n_out, n_in]);
        let found = weights.linear(&x, Some(&bias));
        assert_eq!(found.len(), n_rows * n_out);
        for (place, found) in found.iter().enumerate() {
            let (x, row) = (&x[place / n_out * n_in..], &rows[place % n_out * n_in..]);
            let products = || {
                x[..n_in]
                    .iter()
                    .zip(row)
                    .map(|(x, w)| f64::from(*x) * f64::from(*w))
            };
            let bias = f64::from(bias[place % n_out]);
            let expected = products().sum::<f64>() + bias;
            let magnitude = products().map(f64::abs).sum::<f64>() + bias.abs();
            let wrong = (f64::from(*found) - expected).abs();
            assert!(
                wrong <= magnitude * 5e-7,
                "{place}: {found}, not {expected}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn products_are_those_of_f64(
            n_rows in 1_usize..80,
            n_in in 1_usize..100,
            n_out in 1_usize..80,
            seed in 0.0_f32..100.0,
        ) {
            is_the_product(n_rows, n_in, n_out, seed);
        }
    }

    #[test]
    fn long_sums_and_many_rows_are_put_together() {
        // More than one stretch of rows, of inputs, and of both, the last of them shorter.
        is_the_product(300, 768, 33, 1.0);
        is_the_product(3, 2048, 40, 2.0);
        is_the_product(520, 800, 5, 3.0);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let Some(amx) = Amx::get() else {
            return;
        };
        let weights = Weights::new(amx, &[1.0; 64], [2, 32]);
        for odd in [f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY] {
            let mut x = [0.0; 64];
            x[40] = odd;
            let found = weights.linear(&x, None);
            assert!(found[..2].iter().all(|sum| *sum == 0.0), "{odd}: {found:?}");
            assert!(
                found[2..].iter().all(|sum| !sum.is_finite()),
                "{odd}: {found:?}"
            );
        }
    }
}

//! Matrix products in f32 on AMX, the matrix unit of Intel's processors since Sapphire Rapids.
//!
//! It multiplies whole numbers of 8 bits and adds up in 32, exactly. Each row of a matrix is therefore written in fixed point: a unit that
//! its largest number sets, and for each number 23 bits and a sign, three digits to the base of 256. Of the nine products of digits eight are
//! taken; the ninth is below what was rounded off (Ozaki, Ogita, Oishi and Rump 2012, "Error-free transformations of matrix
//! multiplication by using fast routines of matrix multiplication and its applications"; Ootomo, Ozaki and Yokota 2024, "DGEMM on
//! integer matrix multiplication unit").
//!
//! Fixed point loses what is small beside its row's largest number. Of rows that lose more than they may two digits are taken, and what lies
//! behind them as a row of its own. Of weights neither outputs nor inputs may lose so much, since an input with small weights may be a large number.
//! Where they would, inputs are scaled so that the magnitudes of their weights are about the same (as Xiao et al. 2023 do in
//! quantization); where that is not enough, they are not taken.
//!
//! The first two digits take three products. They say which outputs can be the largest, by a bound on what they leave out.

use std::array;
use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows and outputs that are multiplied at once.
pub(crate) const SIDE: usize = 16;
/// Numbers of each that are multiplied and added up at once.
const DEPTH: usize = 64;
/// Longest sum that [`Weights::linear`] takes at once: what belongs to 256 rows then fits in the second cache, 2 MB.
const LONGEST: usize = 1536;
/// What rows, and of weights columns, may lose, root mean square, as a share of the mean magnitude of all their numbers but the largest, which may meet
/// a 0. A row loses it whose largest is thirty to sixty times that mean.
const TOLERATED: f32 = 2e-6;
/// The smallest scale of inputs, 2⁻⁴⁰.
const SMALLEST: f32 = 9.094_947e-13;
/// Steps of the last digit that are one of the first.
const STEPS: f32 = 65_536.0;

/// That this processor has AMX, and that the system lets this process use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// Asks the system for AMX.
    pub(crate) fn get() -> Option<Self> {
        unit::is_granted().then_some(Self(()))
    }
}

/// `DEPTH` numbers of each of `SIDE` rows, as the unit reads them: a tile for each digit, the first digit first. Of weights, rows are
/// outputs, and a tile has them as columns, by fours of numbers.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Block([[u8; SIDE * DEPTH]; 3]);

impl Block {
    const ZERO: Self = Self([[0; SIDE * DEPTH]; 3]);
}

/// Products of `SIDE` rows and `SIDE` outputs.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[f32; SIDE]; SIDE]);

/// What is done with products.
pub(crate) trait Sink {
    /// Takes the products of these rows and outputs, which may be fewer than the tile has.
    fn take(&mut self, rows: Range<usize>, outputs: Range<usize>, tile: &mut Tile);
}

/// The weights of a linear layer as digits: 3 bytes each.
#[derive(Debug)]
pub(crate) struct Weights {
    amx: Amx,
    n_in: usize,
    n_out: usize,
    /// What each input is multiplied by, and its weights are divided by; powers of two, if any.
    scales: Option<Vec<f32>>,
    /// `[n_out / SIDE, n_in / DEPTH]`
    blocks: Vec<Block>,
    /// Of each output, what the first digit counts; 0 behind the last, to whole blocks.
    units: Vec<f32>,
    /// No less than the Euclidean norm of each output's weights; 0 behind the last, to whole blocks.
    norms: Vec<f32>,
    /// No less than the share of its norm that any output has in second digits,
    second: f32,
    /// and in what lies behind them.
    behind: f32,
}

impl Weights {
    /// From the file's order, `[n_out, n_in]`. None where these weights would lose more than they may, and where sums could be too large.
    pub(crate) fn new(amx: Amx, rows: &[f32], [n_out, n_in]: [usize; 2]) -> Option<Self> {
        // Two coarse products of two digits, each at most 2¹⁴, are to stay below 2³¹.
        if n_in >= 65_536 {
            return None;
        }
        let losses = Losses::of(amx, rows, n_in);
        if losses.are_tolerated() {
            return Some(Self::of(amx, rows, [n_out, n_in], None));
        }
        let scales = losses.scales();
        let mut rows = rows.to_vec();
        for row in rows.chunks_exact_mut(n_in) {
            for (weight, scale) in row.iter_mut().zip(&scales) {
                *weight /= scale;
            }
        }
        Losses::of(amx, &rows, n_in)
            .are_tolerated()
            .then(|| Self::of(amx, &rows, [n_out, n_in], Some(scales)))
    }

    fn of(amx: Amx, rows: &[f32], [n_out, n_in]: [usize; 2], scales: Option<Vec<f32>>) -> Self {
        let n_blocks = n_in.div_ceil(DEPTH);
        let mut weights = Self {
            amx,
            n_in,
            n_out,
            scales,
            blocks: vec![Block::ZERO; n_out.div_ceil(SIDE) * n_blocks],
            units: vec![0.0; n_out.next_multiple_of(SIDE)],
            norms: vec![0.0; n_out.next_multiple_of(SIDE)],
            second: 0.0,
            behind: 0.0,
        };
        for (output, row) in rows.chunks_exact(n_in).enumerate() {
            let scale = Scale::of(unit::size(amx, row).largest);
            let norms = unit::norms(amx, row, scale);
            weights.units[output] = scale.unit;
            weights.norms[output] = norms.all;
            weights.second = weights.second.max(norms.second / norms.all);
            weights.behind = weights.behind.max(norms.behind / norms.all);
            let column = output % SIDE;
            let blocks = &mut weights.blocks[output / SIDE * n_blocks..][..n_blocks];
            for (numbers, block) in row.chunks(DEPTH).zip(blocks) {
                let digits = unit::digits(amx, &padded(numbers), scale);
                for (digits, tile) in digits.iter().zip(&mut block.0) {
                    for (four, digits) in digits.chunks_exact(4).enumerate() {
                        tile[four * DEPTH + column * 4..][..4].copy_from_slice(digits);
                    }
                }
            }
        }
        weights
    }

    /// Inputs as these weights take them.
    fn scaled<'a>(&self, x: &'a [f32]) -> Cow<'a, [f32]> {
        let Some(scales) = &self.scales else {
            return Cow::Borrowed(x);
        };
        let rows = x.chunks_exact(self.n_in);
        rows.flat_map(|row| row.iter().zip(scales).map(|(number, scale)| number * scale))
            .collect()
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
        let x = &*self.scaled(x);
        let n = x.len() / self.n_in * self.n_out;
        let mut sums = Vec::with_capacity(n);
        let n_parts = self.n_in.div_ceil(LONGEST);
        let length = self.n_in.div_ceil(n_parts).next_multiple_of(DEPTH);
        let part = |first: usize| first..self.n_in.min(first + length);
        let mut written = Written {
            sums: &mut sums.spare_capacity_mut()[..n],
            count: 0,
            n_out: self.n_out,
            bias,
        };
        let of_two = unit::multiply(self.amx, self, x, part(0), &mut written);
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
        let mut add = |x: &[f32], inputs, places: Option<&[usize]>| {
            let mut added = Added {
                sums: &mut sums,
                places,
                n_out: self.n_out,
            };
            unit::multiply(self.amx, self, x, inputs, &mut added);
        };
        for first in (length..self.n_in).step_by(length) {
            add(x, part(first), None);
        }
        if !of_two.is_empty() {
            let rows = of_two.iter().map(|row| &x[row * self.n_in..][..self.n_in]);
            let rest: Vec<f32> = rows.flat_map(|row| unit::behind(self.amx, row)).collect();
            // Of these, too, two digits may be all that is taken: what is lost then is far below f32.
            for first in (0..self.n_in).step_by(length) {
                add(&rest, part(first), Some(&of_two));
            }
        }
        sums
    }

    /// Gives `sink` the products of the first two digits: of all of x's rows, `[m, n_in]`, with all outputs.
    pub(crate) fn coarse_products(&self, x: &[f32], sink: &mut impl Sink) {
        unit::multiply_coarse(self.amx, self, &self.scaled(x), sink);
    }

    /// How far a row's product with an output is at most from its coarse product, for each unit of the output's norm: with a
    /// number's two digits, x = x₁ + x₂ + rest, |Σ xw − Σ (x₁w₁ + x₁w₂ + x₂w₁)| ≤ ‖rest of x‖ · ‖w‖ + ‖x₁ + x₂‖ · ‖rest of w‖ + ‖x₂‖ · ‖w₂‖ (Cauchy
    /// and Schwarz), and what is rounded off where sums become f32. ‖x₁ + x₂‖ may be above ‖x‖ by 0.8 %, which the last factor covers.
    pub(crate) fn radius(&self, row: &[f32]) -> f32 {
        let row = &*self.scaled(row);
        let scale = Scale::of(unit::size(self.amx, row).largest);
        let x = unit::norms(self.amx, row, scale);
        1.01 * (x.behind + x.all * (self.behind + 1e-6) + x.second * self.second)
    }

    /// No less than the norm of each output's weights, inputs being scaled; 0 behind the last, to a whole tile.
    pub(crate) fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// The Euclidean norm of a row, as these weights take it.
    pub(crate) fn norm(&self, row: &[f32]) -> f64 {
        let row = self.scaled(row);
        let squares = row.iter().map(|number| f64::from(*number).powi(2));
        squares.sum::<f64>().sqrt()
    }

    /// No less than the norm of any output's weights; infinite where one is not known.
    pub(crate) fn largest_norm(&self) -> f64 {
        let norms = self.norms.iter().copied().map(f64::from);
        norms.fold(0.0, |largest, norm| {
            if norm.is_finite() {
                largest.max(norm)
            } else {
                f64::INFINITY
            }
        })
    }

    /// A row's product with one output, summed in f64.
    pub(crate) fn product(&self, row: &[f32], output: usize) -> f32 {
        let column = output % SIDE;
        let blocks = self.blocks(output / SIDE, &(0..self.n_in));
        let row = self.scaled(row);
        let products = row.chunks(DEPTH).zip(blocks).flat_map(|(numbers, block)| {
            numbers.iter().enumerate().map(move |(place, number)| {
                let place = place / 4 * DEPTH + column * 4 + place % 4;
                let [first, second, third] =
                    [0, 1, 2].map(|digit| i32::from(block.0[digit][place].cast_signed()));
                f64::from(*number) * f64::from((first * 256 + second) * 256 + third)
            })
        });
        let step = f64::from(self.units[output]) / f64::from(STEPS);
        #[expect(clippy::cast_possible_truncation, reason = "a number in f32")]
        let sum = (products.sum::<f64>() * step) as f32;
        sum
    }

    /// Blocks of `SIDE` outputs and these inputs.
    fn blocks(&self, outputs: usize, inputs: &Range<usize>) -> &[Block] {
        let n_blocks = self.n_in.div_ceil(DEPTH);
        &self.blocks[outputs * n_blocks..][inputs.start / DEPTH..inputs.end.div_ceil(DEPTH)]
    }
}

/// How large the numbers of a row or column are.
#[derive(Clone, Copy)]
struct Size {
    n: usize,
    /// The largest magnitude; infinite or no number where a number is.
    largest: f32,
    /// Sum of the magnitudes.
    sum: f32,
}

impl Size {
    /// Mean magnitude of all but the largest, or of the only one.
    fn mean(self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "a length of rows")]
        match self.n {
            1 => self.sum,
            n => (self.sum - self.largest) / (n - 1) as f32,
        }
    }

    /// Euclidean norm of what they may lose.
    fn tolerated(self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "a length of rows")]
        let n = self.n as f32;
        // Rows of next to nothing have fewer digits, and lose next to nothing.
        TOLERATED * n.sqrt() * self.mean() + 1e-30
    }
}

/// What weights lose as whole numbers of three digits.
struct Losses {
    /// Whether each row's is tolerated.
    of_rows: bool,
    n_rows: usize,
    /// Of each column, the largest magnitude,
    largest: Vec<f32>,
    /// the sum of magnitudes,
    sums: Vec<f32>,
    /// and the sum of what is lost, squared.
    lost: Vec<f32>,
}

impl Losses {
    /// Of `[n_out, n_in]`.
    fn of(amx: Amx, rows: &[f32], n_in: usize) -> Self {
        let zeros = || vec![0.0; n_in];
        let mut losses = Self {
            of_rows: true,
            n_rows: rows.len() / n_in,
            largest: zeros(),
            sums: zeros(),
            lost: zeros(),
        };
        for row in rows.chunks_exact(n_in) {
            let size = unit::size(amx, row);
            let lost = unit::add_losses(amx, row, Scale::of(size.largest), &mut losses);
            losses.of_rows &= lost.sqrt() <= size.tolerated();
        }
        losses
    }

    fn columns(&self) -> impl Iterator<Item = Size> {
        let columns = self.largest.iter().zip(&self.sums);
        columns.map(|(largest, sum)| Size {
            n: self.n_rows,
            largest: *largest,
            sum: *sum,
        })
    }

    fn are_tolerated(&self) -> bool {
        let mut columns = self.columns().zip(&self.lost);
        self.of_rows && columns.all(|(size, lost)| lost.sqrt() <= size.tolerated())
    }

    /// Powers of two, 1 at most, by which columns are about as many times smaller than the one of the largest numbers.
    fn scales(&self) -> Vec<f32> {
        let largest = self.columns().map(Size::mean).fold(0.0, f32::max);
        let scale = |mean: f32| match mean / largest {
            // Its bits but the fraction's are a power of two.
            share if share > 0.0 => f32::from_bits(share.max(SMALLEST).to_bits() & 0x7f80_0000),
            _ => 1.0,
        };
        self.columns().map(Size::mean).map(scale).collect()
    }
}

/// How a row's numbers become whole numbers of three digits; powers of two.
#[derive(Clone, Copy)]
struct Scale {
    /// Steps of the last digit in 1.
    factor: f32,
    /// What the first digit counts; no number where the row has what is none.
    unit: f32,
}

impl Scale {
    /// Of a row by its largest magnitude.
    fn of(largest: f32) -> Self {
        if !largest.is_finite() {
            return Self {
                factor: 0.0,
                unit: f32::NAN,
            };
        }
        // The exponent's bits, so that the largest becomes 2²² to 2²³. What is below 4e-32 has fewer digits, lest the factor overflow.
        let exponent = 253.min(276 - (largest.to_bits() >> 23));
        // Three digits hold 127 · (256² + 256 + 1) at most.
        let exponent = exponent - u32::from(largest * power(exponent) > 8_355_711.0);
        Self {
            factor: power(exponent),
            unit: power(254 - exponent) * STEPS,
        }
    }
}

/// The power of two with these bits of an exponent.
fn power(exponent: u32) -> f32 {
    f32::from_bits(exponent << 23)
}

/// Euclidean norms of a row, none less than it is, of
#[derive(Clone, Copy, Debug)]
struct Norms {
    /// its numbers,
    all: f32,
    /// their second digits,
    second: f32,
    /// and what lies behind those, of the numbers and of their digits.
    behind: f32,
}

/// Zeros behind what is no whole block.
#[inline(always)]
fn padded(numbers: &[f32]) -> [f32; DEPTH] {
    let mut whole = [0.0; DEPTH];
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
    /// Of each row that is added, which row it is added to; by default the same.
    places: Option<&'a [usize]>,
    n_out: usize,
}

impl Sink for Added<'_> {
    #[inline(always)]
    fn take(&mut self, rows: Range<usize>, outputs: Range<usize>, tile: &mut Tile) {
        for (row, products) in rows.zip(&tile.0) {
            let row = self.places.map_or(row, |places| places[row]);
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
    use super::{
        Amx, Block, DEPTH, LONGEST, Losses, Norms, SIDE, STEPS, Scale, Sink, Size, Tile, Weights,
        padded,
    };
    use std::arch::asm;
    use std::arch::x86_64::{
        __cpuid_count, _MM_HINT_T1, _mm_prefetch, _mm_storeu_si128, _mm512_add_epi32,
        _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_fmadd_ps,
        _mm512_load_si512, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_srli_epi32, _mm512_storeu_ps, _mm512_xor_si512,
    };
    use std::cell::Cell;
    use std::ops::Range;

    /// Numbers of a matrix that are kept as digits in the second cache.
    const N_KEPT: usize = 256 * LONGEST;

    thread_local! {
        /// Room for rows as digits, which is not cleared for each product.
        static KEPT: Cell<Vec<Block>> = const { Cell::new(Vec::new()) };
    }

    /// Whether processor and system both let us.
    pub(super) fn is_granted() -> bool {
        // From Linux's arch/x86/include/uapi/asm/prctl.h, and the number of the state that holds tiles.
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILE_DATA: libc::c_long = 18;
        const AMX_INT8: u32 = 1 << 25;
        const AMX_TILE: u32 = 1 << 24;
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        if !vectors || __cpuid_count(7, 0).edx & (AMX_INT8 | AMX_TILE) != AMX_INT8 | AMX_TILE {
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

    /// How large a row's numbers are.
    pub(super) fn size(_: Amx, row: &[f32]) -> Size {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { size_here(row) }
    }

    /// Adds what a row of weights loses to its columns'; what it loses altogether, squared.
    pub(super) fn add_losses(_: Amx, row: &[f32], scale: Scale, losses: &mut Losses) -> f32 {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { add_losses_here(row, scale, losses) }
    }

    /// The norms of a row whose numbers are finite.
    pub(super) fn norms(_: Amx, row: &[f32], scale: Scale) -> Norms {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { norms_here(row, scale) }
    }

    /// What lies behind a row's second digits.
    pub(super) fn behind(_: Amx, row: &[f32]) -> Vec<f32> {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { behind_here(row) }
    }

    /// First, second and third digits.
    pub(super) fn digits(_: Amx, numbers: &[f32; DEPTH], scale: Scale) -> [[u8; DEPTH]; 3] {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { digits_here(numbers, scale) }
    }

    /// Gives `sink` the products of x's rows and all outputs, summed over some inputs, which begin at a block's. Gives the rows of which
    /// only two digits were taken.
    pub(super) fn multiply(
        _: Amx,
        weights: &Weights,
        x: &[f32],
        inputs: Range<usize>,
        sink: &mut impl Sink,
    ) -> Vec<usize> {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { multiply_here::<false>(weights, x, inputs, sink) }
    }

    /// The same of the first two digits, and of all inputs.
    pub(super) fn multiply_coarse(_: Amx, weights: &Weights, x: &[f32], sink: &mut impl Sink) {
        // SAFETY: that there is an `Amx` says that there are these instructions.
        unsafe { multiply_here::<true>(weights, x, 0..weights.n_in, sink) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn size_here(row: &[f32]) -> Size {
        // As whole numbers magnitudes have the same order, and what is no number is above all.
        let (mut largest, mut sums) = ([0; SIDE], [0.0_f32; SIDE]);
        let (wholes, rest) = row.as_chunks::<SIDE>();
        let mut last = [0.0; SIDE];
        last[..rest.len()].copy_from_slice(rest);
        for whole in wholes.iter().chain([&last]) {
            for ((largest, sum), number) in largest.iter_mut().zip(&mut sums).zip(whole) {
                *largest = number.abs().to_bits().max(*largest);
                *sum += number.abs();
            }
        }
        Size {
            n: row.len(),
            largest: f32::from_bits(largest.into_iter().fold(0, u32::max)),
            sum: sums.iter().sum(),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn add_losses_here(row: &[f32], scale: Scale, losses: &mut Losses) -> f32 {
        let step = scale.unit / STEPS;
        let sizes = losses.largest.iter_mut().zip(&mut losses.sums);
        for (number, (largest, sum)) in row.iter().zip(sizes) {
            *largest = largest.max(number.abs());
            *sum += number.abs();
        }
        let mut all = [0.0; SIDE];
        let columns = losses.lost.chunks_mut(SIDE);
        for (numbers, columns) in row.chunks(SIDE).zip(columns) {
            for ((number, column), all) in numbers.iter().zip(columns).zip(&mut all) {
                let steps = number * scale.factor;
                let lost = ((steps - steps.round_ties_even()) * step).powi(2);
                *column += lost;
                *all += lost;
            }
        }
        all.iter().sum()
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn behind_here(row: &[f32]) -> Vec<f32> {
        let factor = Scale::of(size_here(row).largest).factor;
        let behind = |number: &f32| {
            let steps = (number * factor).round_ties_even();
            let coarse = ((steps + 128.0) / 256.0).floor() * 256.0;
            number - coarse / factor
        };
        row.iter().map(behind).collect()
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn norms_here(row: &[f32], scale: Scale) -> Norms {
        let zeros = [0.0_f32; SIDE];
        let (mut all, mut second, mut behind) = (zeros, zeros, zeros);
        for numbers in row.chunks(SIDE) {
            let mut whole = zeros;
            whole[..numbers.len()].copy_from_slice(numbers);
            for (place, number) in whole.iter().enumerate() {
                let steps = number * scale.factor;
                let rounded = steps.round_ties_even();
                #[expect(clippy::cast_possible_truncation, reason = "less than 2²³")]
                let whole_steps = rounded as i32;
                let low = (whole_steps << 24) >> 24;
                let middle = ((whole_steps - low) << 16) >> 24;
                #[expect(clippy::cast_precision_loss, reason = "digits")]
                let (middle, low) = ((middle * 256) as f32, low as f32);
                let rest = steps - rounded;
                all[place] += (steps.abs() + 1.0).powi(2);
                second[place] += middle * middle;
                behind[place] += (low.abs() + rest.abs()).powi(2);
            }
        }
        let norm =
            |squares: [f32; SIDE]| squares.iter().sum::<f32>().sqrt() * 1.001 / STEPS * scale.unit;
        let [all, second, behind] = [all, second, behind].map(norm);
        Norms {
            // More than 0, for what is divided by it.
            all: all + 1e-24,
            second,
            behind,
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn digits_here(numbers: &[f32; DEPTH], scale: Scale) -> [[u8; DEPTH]; 3] {
        let mut digits = [[0; DEPTH]; 3];
        let factor = _mm512_set1_ps(scale.factor);
        // With 128 in every digit none is negative, and bytes are digits.
        let middle = _mm512_set1_epi32(0x0080_8080);
        for (place, some) in numbers.as_chunks::<SIDE>().0.iter().enumerate() {
            // SAFETY: 16 numbers are read of 16, and 16 bytes written at the first, second, third and fourth 16 of 64.
            unsafe {
                let steps =
                    _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(some.as_ptr()), factor));
                let bytes = _mm512_xor_si512(_mm512_add_epi32(steps, middle), middle);
                let of_digit = [
                    _mm512_srli_epi32::<16>(bytes),
                    _mm512_srli_epi32::<8>(bytes),
                    bytes,
                ];
                for (digits, bytes) in digits.iter_mut().zip(of_digit) {
                    let to = digits.as_mut_ptr().add(place * SIDE);
                    _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(bytes));
                }
            }
        }
        digits
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn multiply_here<const COARSE: bool>(
        weights: &Weights,
        x: &[f32],
        inputs: Range<usize>,
        sink: &mut impl Sink,
    ) -> Vec<usize> {
        let n_rows = x.len() / weights.n_in;
        let n_blocks = inputs.len().div_ceil(DEPTH);
        let n_panels = weights.n_out.div_ceil(SIDE);
        let most = (N_KEPT / (n_blocks * DEPTH)).max(SIDE);
        // Stretches of about the same length.
        let n_kept = n_rows
            .div_ceil(n_rows.div_ceil(most).max(1))
            .next_multiple_of(SIDE);
        let mut room = KEPT.take();
        let n = n_kept.div_ceil(SIDE) * n_blocks;
        if room.len() < n {
            room.resize(n, Block::ZERO);
        }
        let mut units = vec![0.0; n_kept];
        let mut all_of_two = Vec::new();
        let mut sums = Sums([[[0; SIDE]; SIDE]; 4]);
        let mut tile = Tile([[0.0; SIDE]; SIDE]);
        let _configured = Configured::new();
        for first in (0..n_rows).step_by(n_kept.max(1)) {
            let end = n_rows.min(first + n_kept);
            let rows = &x[first * weights.n_in..end * weights.n_in];
            let of_two = write_digits::<COARSE>(rows, weights.n_in, &inputs, &mut room, &mut units);
            all_of_two.extend(of_two.into_iter().map(|row| first + row));
            let kept = &room[..(end - first).div_ceil(SIDE) * n_blocks];
            let n_ahead = n_blocks.div_ceil(kept.len() / n_blocks);
            for panel in 0..n_panels {
                let outputs = panel * SIDE..weights.n_out.min((panel + 1) * SIDE);
                let here = weights.blocks(panel, &inputs);
                // What comes next is brought to the second cache meanwhile.
                let next = weights.blocks((panel + 1) % n_panels, &inputs);
                let mut ahead = next.chunks(n_ahead);
                let units_out = &weights.units.as_chunks().0[panel];
                let blocks = kept.chunks_exact(n_blocks).zip(units.as_chunks().0);
                for (place, (rows, units_in)) in blocks.enumerate() {
                    fetch::<COARSE>(ahead.next().unwrap_or_default());
                    multiply_blocks::<COARSE>(rows, here, &mut sums);
                    sums.put_together::<COARSE>(units_in, units_out, &mut tile);
                    let row = first + place * SIDE;
                    sink.take(row..end.min(row + SIDE), outputs.clone(), &mut tile);
                }
            }
        }
        KEPT.set(room);
        all_of_two
    }

    /// Writes these inputs of x's rows, `[m, n_in]`, to blocks, and what their first digits count to `units`. Gives the rows of which only two
    /// digits are taken: those that would lose too much. Rows that a block has beyond the last keep what they held.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn write_digits<const COARSE: bool>(
        x: &[f32],
        n_in: usize,
        inputs: &Range<usize>,
        blocks: &mut [Block],
        units: &mut [f32],
    ) -> Vec<usize> {
        let n_blocks = inputs.len().div_ceil(DEPTH);
        let mut of_two = Vec::new();
        for (row, (numbers, unit)) in x.chunks_exact(n_in).zip(units).enumerate() {
            let size = size_here(numbers);
            let scale = Scale::of(size.largest);
            *unit = scale.unit;
            // What is rounded off is uniform between half a step less and more.
            #[expect(clippy::cast_precision_loss, reason = "a length of rows")]
            let lost = scale.unit / STEPS * (n_in as f32 / 12.0).sqrt();
            let is_of_two = !COARSE && lost > size.tolerated();
            if is_of_two {
                of_two.push(row);
            }
            let blocks = &mut blocks[row / SIDE * n_blocks..][..n_blocks];
            for (numbers, block) in numbers[inputs.clone()].chunks(DEPTH).zip(blocks) {
                let mut digits = match numbers.try_into() {
                    Ok(whole) => digits_here(whole, scale),
                    Err(_) => digits_here(&padded(numbers), scale),
                };
                if is_of_two {
                    digits[2] = [0; DEPTH];
                }
                for (tile, digits) in block.0.iter_mut().zip(digits) {
                    tile[row % SIDE * DEPTH..][..DEPTH].copy_from_slice(&digits);
                }
            }
        }
        of_two
    }

    /// Brings the digits that will be read to the second cache.
    #[inline(always)]
    fn fetch<const COARSE: bool>(blocks: &[Block]) {
        for block in blocks {
            let read = if COARSE { &block.0[..2] } else { &block.0[..] };
            for line in read.as_flattened().chunks_exact(64) {
                // SAFETY: fetching does nothing else.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
            }
        }
    }

    /// Sums of the products of digits whose places add up to 0, 1, 2 and 3.
    #[repr(C, align(64))]
    struct Sums([[[i32; SIDE]; SIDE]; 4]);

    impl Sums {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn put_together<const COARSE: bool>(
            &self,
            units_in: &[f32; SIDE],
            units_out: &[f32; SIDE],
            tile: &mut Tile,
        ) {
            let n_places = if COARSE { 2 } else { 4 };
            // SAFETY: 16 numbers are read from each row of 16, and 16 written to one.
            unsafe {
                let units_out = _mm512_loadu_ps(units_out.as_ptr());
                let next = _mm512_set1_ps(1.0 / 256.0);
                for (row, (products, unit)) in tile.0.iter_mut().zip(units_in).enumerate() {
                    let products_of = |place: usize| {
                        let row: *const [i32; SIDE] = &raw const self.0[place][row];
                        _mm512_cvtepi32_ps(_mm512_load_si512(row.cast()))
                    };
                    let mut sum = products_of(n_places - 1);
                    for place in (0..n_places - 1).rev() {
                        sum = _mm512_fmadd_ps(sum, next, products_of(place));
                    }
                    let unit = _mm512_mul_ps(_mm512_set1_ps(*unit), units_out);
                    _mm512_storeu_ps(products.as_mut_ptr(), _mm512_mul_ps(sum, unit));
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

    /// Loads a digit's tile, and brings the next block's to the first cache.
    macro_rules! load {
        ($tile:literal, $blocks:literal, $digit:literal) => {
            concat!(
                "tileloadd ",
                $tile,
                ", [{",
                $blocks,
                "} + {row} + 1024 * ",
                $digit,
                "]\n",
                ".irp line, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n",
                "prefetcht0 [{",
                $blocks,
                "} + 3072 + 1024 * ",
                $digit,
                " + 64 * \\line]\n",
                ".endr"
            )
        };
    }

    /// Adds products to sums. With instructions that do nothing between them, tiles' take two thirds of the time while they are slow, presumably since the
    /// core's other thread is busy, and they do not fill the queue; BENCHMARKS.md has the figures.
    macro_rules! add {
        ($sums:literal, $rows:literal, $outputs:literal) => {
            concat!(
                "tdpbssd ",
                $sums,
                ", ",
                $rows,
                ", ",
                $outputs,
                "\n",
                ".rept 8\n",
                "nop\n",
                ".endr"
            )
        };
    }

    /// Sums over all blocks. Of each block, first digits are multiplied, and rows' first with outputs' second, then follow the given lines, which find
    /// rows' first digits in tmm7, outputs' first and second in tmm4 and tmm5, and add to tmm0 to tmm3.
    macro_rules! sum_of_blocks {
        ($rows:ident, $outputs:ident, $sums:ident, [$($line:expr,)*]) => {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                load!("tmm7", "rows", 0),
                load!("tmm4", "outputs", 0),
                add!("tmm0", "tmm7", "tmm4"),
                load!("tmm5", "outputs", 1),
                add!("tmm1", "tmm7", "tmm5"),
                $($line,)*
                "add {rows}, 3072",
                "add {outputs}, 3072",
                "dec {n_blocks}",
                "jnz 2b",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 1024], tmm1",
                "tilestored [{sums} + {row} + 2048], tmm2",
                "tilestored [{sums} + {row} + 3072], tmm3",
                rows = inout(reg) $rows.as_ptr() => _,
                outputs = inout(reg) $outputs.as_ptr() => _,
                n_blocks = inout(reg) $rows.len() => _,
                sums = in(reg) &raw mut *$sums,
                row = in(reg) 64_usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            )
        };
    }

    /// The products of rows and outputs, summed over all blocks: eight, or the first three.
    fn multiply_blocks<const COARSE: bool>(rows: &[Block], outputs: &[Block], sums: &mut Sums) {
        assert!(rows.len() == outputs.len() && !rows.is_empty());
        // SAFETY: of each block its 3,072 bytes are read or less, and as many as there are; the 4,096 bytes of the sums are written. Fetching ahead does
        // nothing where there is no memory. Tiles are configured, as `multiply_here` alone calls this.
        unsafe {
            if COARSE {
                sum_of_blocks!(
                    rows,
                    outputs,
                    sums,
                    [load!("tmm7", "rows", 1), add!("tmm1", "tmm7", "tmm4"),]
                );
            } else {
                // Outputs' digits stay, rows' come one after another.
                sum_of_blocks!(
                    rows,
                    outputs,
                    sums,
                    [
                        load!("tmm6", "outputs", 2),
                        add!("tmm2", "tmm7", "tmm6"),
                        load!("tmm7", "rows", 1),
                        add!("tmm1", "tmm7", "tmm4"),
                        add!("tmm3", "tmm7", "tmm6"),
                        add!("tmm2", "tmm7", "tmm5"),
                        load!("tmm7", "rows", 2),
                        add!("tmm3", "tmm7", "tmm5"),
                        add!("tmm2", "tmm7", "tmm4"),
                    ]
                );
            }
        }
    }
}

/// There is no AMX.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod unit {
    use super::{Amx, DEPTH, Losses, Norms, Scale, Sink, Size, Weights};
    use std::ops::Range;

    pub(super) fn is_granted() -> bool {
        false
    }

    pub(super) fn size(_: Amx, _: &[f32]) -> Size {
        unreachable!("nobody can have an `Amx`")
    }

    pub(super) fn add_losses(_: Amx, _: &[f32], _: Scale, _: &mut Losses) -> f32 {
        unreachable!("nobody can have an `Amx`")
    }

    pub(super) fn norms(_: Amx, _: &[f32], _: Scale) -> Norms {
        unreachable!("nobody can have an `Amx`")
    }

    pub(super) fn behind(_: Amx, _: &[f32]) -> Vec<f32> {
        unreachable!("nobody can have an `Amx`")
    }

    pub(super) fn digits(_: Amx, _: &[f32; DEPTH], _: Scale) -> [[u8; DEPTH]; 3] {
        unreachable!("nobody can have an `Amx`")
    }

    pub(super) fn multiply(
        _: Amx,
        _: &Weights,
        _: &[f32],
        _: Range<usize>,
        _: &mut impl Sink,
    ) -> Vec<usize> {
        unreachable!("nobody can have an `Amx`")
    }

    pub(super) fn multiply_coarse(_: Amx, _: &Weights, _: &[f32], _: &mut impl Sink) {
        unreachable!("nobody can have an `Amx`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers of either sign and of four magnitudes, up to 1.
    fn numbers(n: usize, of: f32) -> Vec<f32> {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let number = |i| (i as f32 * of).sin() * 10_f32.powi(i32::try_from(i % 4).unwrap_or(0) - 3);
        (0..n).map(number).collect()
    }

    /// Weights of one magnitude.
    fn weights(n: usize, of: f32) -> Vec<f32> {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let weight =
            |i: usize| (i as f32 * of).sin() + if i.is_multiple_of(2) { 1.5 } else { -1.5 };
        (0..n).map(weight).collect()
    }

    /// Beside f64's, and no further from it than fixed point allows, or a sum in f32, where one input is `times` as large as given, and its weights
    /// smaller.
    fn is_the_product(x: &[f32], rows: &[f32], [n_in, n_out]: [usize; 2], times: f32) {
        let Some(amx) = Amx::get() else {
            return;
        };
        let norms = |rows: &[f32]| -> Vec<f64> {
            let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            rows.chunks_exact(n_in)
                .map(|row| norm(row).sqrt())
                .collect()
        };
        let (norms_in, norms_out) = (norms(x), norms(rows));
        let with_one = |rows: &[f32], times: f32| {
            let mut rows = rows.to_vec();
            for row in rows.chunks_exact_mut(n_in) {
                row[n_in / 2] *= times;
            }
            rows
        };
        let (x, rows) = (with_one(x, times), with_one(rows, 1.0 / times));
        let bias = numbers(n_out, 1.3);
        let weights = Weights::new(amx, &rows, [n_out, n_in]).expect("weights of one magnitude");
        let found = weights.linear(&x, Some(&bias));
        assert_eq!(found.len(), x.len() / n_in * n_out);
        for (place, found) in found.iter().enumerate() {
            let (row, output) = (place / n_out, place % n_out);
            let products = x[row * n_in..].iter().zip(&rows[output * n_in..][..n_in]);
            let products = products.map(|(x, w)| f64::from(*x) * f64::from(*w));
            let bias = f64::from(bias[output]);
            let expected = products.sum::<f64>() + bias;
            let wrong = (f64::from(*found) - expected).abs();
            assert!(
                wrong <= (norms_in[row] * norms_out[output] + bias.abs()) * 3e-7,
                "{place}: {found}, not {expected}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn products_are_those_of_f64(
            n_rows in 1_usize..80,
            n_in in 2_usize..100,
            n_out in 1_usize..80,
            of in 0.1_f32..3.0,
            times in prop_oneof![Just(1.0_f32), Just(3e-4), Just(3e4)],
        ) {
            is_the_product(&numbers(n_rows * n_in, of), &weights(n_out * n_in, of + 0.1), [n_in, n_out], times);
        }
    }

    #[test]
    fn long_sums_and_many_rows_are_put_together() {
        // More than one stretch of rows, of inputs, and of both, the last of them shorter.
        for [n_rows, n_in, n_out] in [[600, 768, 33], [3, 4000, 40], [520, 1600, 5]] {
            let (x, rows) = (numbers(n_rows * n_in, 0.73), weights(n_out * n_in, 0.37));
            is_the_product(&x, &rows, [n_in, n_out], 1.0);
        }
    }

    /// Coarse products as they come.
    struct Coarse {
        n_out: usize,
        products: Vec<f32>,
    }

    impl Sink for Coarse {
        fn take(&mut self, rows: Range<usize>, outputs: Range<usize>, tile: &mut Tile) {
            for (row, products) in rows.zip(&tile.0) {
                let place = row * self.n_out + outputs.start;
                self.products[place..][..outputs.len()].copy_from_slice(&products[..outputs.len()]);
            }
        }
    }

    #[test]
    fn coarse_products_are_within_their_bound() {
        let Some(amx) = Amx::get() else {
            return;
        };
        let [n_rows, n_in, n_out] = [40, 1700, 50];
        let mut x = numbers(n_rows * n_in, 0.73);
        let mut rows = numbers(n_out * n_in, 0.37);
        // Where rows and outputs are alike, what is left out adds up; one output is of another magnitude, one row has a number that is.
        rows[..5 * n_in].copy_from_slice(&x[..5 * n_in]);
        for weight in &mut rows[n_in..2 * n_in] {
            *weight *= 1e-6;
        }
        x[7 * n_in + 3] = 500.0;
        let weights = Weights::new(amx, &rows, [n_out, n_in]).expect("weights of one magnitude");
        let mut found = Coarse {
            n_out,
            products: vec![f32::NAN; n_rows * n_out],
        };
        weights.coarse_products(&x, &mut found);
        let mut largest = 0.0_f32;
        for (place, coarse) in found.products.iter().enumerate() {
            let (row, output) = (place / n_out, place % n_out);
            let x = &x[row * n_in..][..n_in];
            let products = x.iter().zip(&rows[output * n_in..]);
            let exact: f64 = products.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            #[expect(clippy::cast_possible_truncation, reason = "a difference")]
            let moved = (f64::from(*coarse) - exact).abs() as f32;
            let bound = weights.radius(x) * weights.norms()[output];
            assert!(moved <= bound, "{place}: {moved} > {bound}");
            largest = largest.max(moved / bound);
        }
        // The bound is not that of another magnitude.
        assert!(largest > 0.1, "{largest}");
    }

    #[test]
    fn digits_are_those_of_any_number() {
        let Some(amx) = Amx::get() else {
            return;
        };
        // The largest and smallest of three digits, and what is just beyond; the product with 1 and 0.
        let largest = 8_355_711.0_f32;
        for number in [
            largest,
            -largest,
            largest + 1.0,
            8_388_607.0,
            1.0,
            0.0,
            1e-38,
            3e38,
            -1.5e-45,
        ] {
            let weights = Weights::new(amx, &[number; 2], [1, 2]).expect("of one magnitude");
            let found = weights.linear(&[1.0, 0.0], None)[0];
            let wrong = (found - number).abs();
            assert!(
                wrong <= number.abs() * 1.2e-7 + 1e-37,
                "{found}, not {number}"
            );
        }
    }

    #[test]
    fn rows_of_many_magnitudes_lose_no_more() {
        // One number a thousand times as large as the others, whose weight is 0: without what such a row loses it would be wrong by 1e-4.
        let (n_rows, n_in, n_out) = (40, 2000, 20);
        let mut x = numbers(n_rows * n_in, 0.73);
        let mut rows = numbers(n_out * n_in, 0.37);
        for row in [3, 17, 39] {
            x[row * n_in + 1700] = 1000.0;
        }
        for row in rows.chunks_exact_mut(n_in) {
            row[1700] = 0.0;
        }
        let Some(amx) = Amx::get() else {
            return;
        };
        let weights = Weights::new(amx, &rows, [n_out, n_in]).expect("weights of one magnitude");
        let with = weights.linear(&x, None);
        for row in [3, 17, 39] {
            x[row * n_in + 1700] = 0.0;
        }
        for (with, without) in with.iter().zip(weights.linear(&x, None)) {
            assert!((with - without).abs() < 6e-6, "{with}, not {without}");
        }
        // Weights like that are not taken.
        rows[1700] = 1000.0;
        assert!(Weights::new(amx, &rows, [n_out, n_in]).is_none());
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let Some(amx) = Amx::get() else {
            return;
        };
        let weights = Weights::new(amx, &[1.0; 64], [2, 32]).expect("ones lose nothing");
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

//! Polars' columns as arrow's arrays, which the writer takes.

use super::Kind;
use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int32Type, UInt16Type, UInt32Type,
};
use arrow_array::{ArrayRef, BooleanArray, PrimitiveArray, StringArray, new_null_array};
use polars::prelude::{
    BooleanChunked, ChunkedArray, Column, PolarsNumericType, PolarsResult, polars_bail,
};
use std::sync::Arc;

/// A column of `kind`, copied.
///
/// # Errors
///
/// When it is of another kind, or of lists.
pub(super) fn array(column: &Column, kind: Kind) -> PolarsResult<ArrayRef> {
    if column.null_count() == column.len() {
        return Ok(new_null_array(&kind.arrow_type(), column.len()));
    }
    Ok(match kind {
        Kind::Text => Arc::new(column.str()?.iter().collect::<StringArray>()),
        Kind::Flag => flags(column.bool()?),
        Kind::U16 => numbers::<_, UInt16Type>(column.u16()?),
        Kind::U32 => numbers::<_, UInt32Type>(column.u32()?),
        Kind::I32 => numbers::<_, Int32Type>(column.i32()?),
        Kind::F32 => numbers::<_, Float32Type>(column.f32()?),
        Kind::F64 => numbers::<_, Float64Type>(column.f64()?),
        Kind::Tokens => polars_bail!(InvalidOperation: "lists are not copied from frames"),
    })
}

fn flags(values: &BooleanChunked) -> ArrayRef {
    let values = values.rechunk();
    let chunk = values.downcast_as_array();
    if values.null_count() > 0 {
        return Arc::new(values.iter().collect::<BooleanArray>());
    }
    let (bytes, offset, len) = chunk.values().as_slice();
    let mut bits = BooleanBufferBuilder::new(len);
    bits.append_packed_range(offset..offset + len, bytes);
    Arc::new(BooleanArray::new(bits.finish(), None))
}

fn numbers<P, A>(values: &ChunkedArray<P>) -> ArrayRef
where
    P: PolarsNumericType<Native = A::Native>,
    A: ArrowPrimitiveType,
{
    if values.null_count() > 0 {
        return Arc::new(values.iter().collect::<PrimitiveArray<A>>());
    }
    let mut all = Vec::with_capacity(values.len());
    for chunk in values.data_views() {
        all.extend_from_slice(chunk);
    }
    Arc::new(PrimitiveArray::<A>::new(all.into(), None))
}

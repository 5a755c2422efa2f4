//! Many tests at once.

/// The q value of each p: the smallest false discovery rate at which it is found (Benjamini and Hochberg 1995).
pub fn q_values(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|a, b| ps[*b].total_cmp(&ps[*a]));
    let mut qs = vec![1.0; ps.len()];
    let mut smallest: f64 = 1.0;
    for (n_larger, &place) in order.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a number of tests")]
        let scale = ps.len() as f64 / (ps.len() - n_larger) as f64;
        smallest = smallest.min(ps[place] * scale);
        qs[place] = smallest;
    }
    qs
}

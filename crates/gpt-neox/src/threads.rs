//! Threads, and the error of a system that starts no more of them.

use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};
use std::error::Error;
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The system starts no threads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system lets this process start no more threads: {message}")]
pub struct ThreadError {
    message: String,
}

impl ThreadError {
    fn new(error: &impl ToString) -> Self {
        let message = error.to_string();
        Self { message }
    }

    /// The cure.
    pub fn hint(&self) -> &'static str {
        "raise the limit with `ulimit -u`, or set RAYON_NUM_THREADS to a smaller number"
    }
}

/// Starts rayon's threads where nothing has yet: asked for later, in the middle of a product, they
/// would end the process by a panic.
pub(crate) fn start() -> Result<(), ThreadError> {
    static STARTED: OnceLock<Result<(), ThreadError>> = OnceLock::new();
    if rayon::current_thread_index().is_some() {
        return Ok(());
    }
    let start = || built(ThreadPoolBuilder::new().build_global());
    STARTED.get_or_init(start).clone()
}

/// Only what the system refused: the error of a pool that is there already has no source.
fn built(pool: Result<(), ThreadPoolBuildError>) -> Result<(), ThreadError> {
    match pool {
        Err(error) if error.source().is_some() => Err(ThreadError::new(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Works on `items` with as many threads as rayon has, each by itself: within one of them, burn's
/// products are not split further, which would cost more than it gains, and would let the number of
/// threads decide how they are summed.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Result<Vec<R>, ThreadError> {
    start()?;
    let next = AtomicUsize::new(0);
    let take = || -> Result<Vec<(usize, R)>, ThreadError> {
        let alone = ThreadPoolBuilder::new().num_threads(1).use_current_thread();
        let _alone = alone.build().map_err(|error| ThreadError::new(&error))?;
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            match items.get(place) {
                None => return Ok(done),
                Some(item) => done.push((place, work(item))),
            }
        }
    };
    let n_threads = rayon::current_num_threads().min(items.len());
    let done: Result<Vec<_>, ThreadError> = thread::scope(|scope| {
        let mut threads = Vec::with_capacity(n_threads);
        for _ in 0..n_threads {
            match thread::Builder::new().spawn_scoped(scope, take) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // Those that did start have nothing left to do.
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(ThreadError::new(&error));
                }
            }
        }
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.collect()
    });
    let mut done: Vec<(usize, R)> = done?.into_iter().flatten().collect();
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_their_items() {
        let items: Vec<usize> = (0..1000).collect();
        let doubled = side_by_side(&items, |item| item * 2).unwrap();
        assert!(doubled.iter().enumerate().all(|(i, found)| *found == i * 2));
        assert_eq!(doubled.len(), 1000);
    }

    #[test]
    fn a_pool_that_is_there_already_is_no_error() {
        start().unwrap();
        assert_eq!(built(ThreadPoolBuilder::new().build_global()), Ok(()));
    }
}

//! What does a GPT-NeoX model continue with? Inference in [burn](https://burn.dev), and k-token memorization.
//!
//! # The question
//!
//! A sequence of the training data is *k-extractable* when the model, given its first k tokens as prompt,
//! continues by greedy decoding with exactly the tokens that follow in the data (Carlini et al. 2023,
//! *Quantifying Memorization Across Neural Language Models*, definition 3.1; Biderman et al. 2023, *Emergent
//! and Predictable Memorization in Large Language Models*, with k = l = 32). Here a *probe* is such a prompt
//! of k tokens with the true continuation of l tokens, and the *verdict* on it is the number of leading
//! continuation tokens that greedy decoding gets right: [`Verdict::n_prefix_matched`]. The sequence is
//! memorized when that is l.
//!
//! Greedy decoding need not be run for this: up to the first miss it feeds the model exactly the true tokens,
//! so that one pass over the true tokens decides.
//!
//! Beside this *exact* measure there are two more, which [`Measures`] asks for. The *score* (Biderman et al. 2023)
//! decodes all l tokens and counts the places that are right, [`Verdict::n_matched`]; here the truth is the draft, and
//! decoding begins at the first miss. The *likelihood* is that of the true continuation, [`Likelihood`].
//!
//! # Example
//!
//! ```no_run
//! use gpt_neox::{DeviceChoice, GptNeox, Judge, Measures, Precision, Probes};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut model = GptNeox::load("pythia-70m/step1000".as_ref(), DeviceChoice::Cpu, Precision::F32)?;
//! let tokens: Vec<u32> = (0..128).collect();
//! let verdicts = model.judge(&Probes::new(&tokens, 32, 32)?, Measures::default())?;
//! assert_eq!(verdicts.len(), 2);
//! assert!(verdicts[0].n_prefix_matched <= 32);
//! # Ok(())
//! # }
//! ```

#![expect(
    clippy::inline_always,
    reason = "what is called with the processor's vector instructions must be part of its caller to be compiled for them"
)]

mod amx;
mod attention;
mod cache;
pub mod config;
pub mod device;
mod exponential;
mod gelu;
mod json;
mod likelihood;
mod linear;
mod memorization;
mod model;
mod next_token;
mod product;
mod threads;
mod weights;

pub use config::GptNeoxConfig;
pub use device::{DeviceChoice, DeviceError, Driver, Precision};
pub use likelihood::TokenLikelihood;
pub use memorization::{Judge, JudgeError, Likelihood, Measures, ProbeError, Probes, Verdict};
pub use model::GptNeox;
pub use threads::ThreadError;
pub use weights::{Checkpoint, Impostor, LoadError, PytorchError, checkpoint_files, tensor_shapes};

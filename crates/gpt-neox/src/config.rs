//! The shape of a model: `config.json` in both dialects in the wild.

use serde::Deserialize;

/// A GPT-NeoX model's hyperparameters, under the names of Hugging Face's `GPTNeoXConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct GptNeoxConfig {
    /// Rows of the token embedding, padding included.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each layer.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Share of a head's dimensions that are rotated.
    pub rotary_pct: f64,
    /// Base of the rotary frequencies.
    pub rotary_emb_base: f64,
    /// Added to the variance in layer normalization.
    pub layer_norm_eps: f64,
    /// Whether attention and feed-forward read the same input, as all of Pythia does.
    pub use_parallel_residual: bool,
    /// Whether the projections of attention have a bias.
    pub attention_bias: bool,
    /// Whether the output projection is the token embedding.
    pub tie_word_embeddings: bool,
}

/// Why a `config.json` describes no model of ours.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not JSON, lacks a key or has a value of another type.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A key is needed in one of two places and stands in neither.
    #[error("neither `{old}` nor `{new}` is given")]
    Missing {
        /// Its name up to transformers 4.
        old: &'static str,
        /// Its name since transformers 5.
        new: &'static str,
    },
    /// A value asks for what GPT-NeoX models of this suite do not have.
    #[error("`{key}` is {found}, only {expected} is supported")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What could be read.
        expected: &'static str,
    },
    /// The numbers contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// `config.json` as it is written.
#[derive(Deserialize)]
struct Raw {
    model_type: String,
    hidden_act: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    use_parallel_residual: bool,
    #[serde(default = "yes")]
    attention_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    rotary_pct: Option<f64>,
    rotary_emb_base: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<RopeParameters>,
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_type: Option<String>,
    partial_rotary_factor: Option<f64>,
    rope_theta: Option<f64>,
}

const fn yes() -> bool {
    true
}

impl GptNeoxConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// When a key is missing or of another type, or describes another architecture.
    pub fn from_json(text: &[u8]) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_slice(text)?;
        let only = |key, found: &str, expected: &'static str| {
            if found == expected {
                return Ok(());
            }
            Err(ConfigError::Unsupported {
                key,
                found: format!("`{found}`"),
                expected,
            })
        };
        only("model_type", &raw.model_type, "gpt_neox")?;
        only("hidden_act", &raw.hidden_act, "gelu")?;
        if let Some(found) = raw.rope_scaling {
            return Err(ConfigError::Unsupported {
                key: "rope_scaling",
                found: found.to_string(),
                expected: "null",
            });
        }
        let rope = raw.rope_parameters.as_ref();
        only(
            "rope_parameters.rope_type",
            rope.and_then(|rope| rope.rope_type.as_deref())
                .unwrap_or("default"),
            "default",
        )?;
        let either = |old_value: Option<f64>, new_value: Option<f64>, old, new| {
            old_value
                .or(new_value)
                .ok_or(ConfigError::Missing { old, new })
        };
        let config = Self {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            intermediate_size: raw.intermediate_size,
            max_position_embeddings: raw.max_position_embeddings,
            rotary_pct: either(
                raw.rotary_pct,
                rope.and_then(|rope| rope.partial_rotary_factor),
                "rotary_pct",
                "rope_parameters.partial_rotary_factor",
            )?,
            rotary_emb_base: either(
                raw.rotary_emb_base,
                rope.and_then(|rope| rope.rope_theta),
                "rotary_emb_base",
                "rope_parameters.rope_theta",
            )?,
            layer_norm_eps: raw.layer_norm_eps,
            use_parallel_residual: raw.use_parallel_residual,
            attention_bias: raw.attention_bias,
            tie_word_embeddings: raw.tie_word_embeddings,
        };
        config.check()?;
        Ok(config)
    }

    /// Dimensions of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Dimensions of one attention head that are rotated.
    pub fn n_rotary(&self) -> usize {
        // transformers: int(head_size * partial_rotary_factor)
        #[expect(
            clippy::cast_precision_loss,
            reason = "a head has far fewer than 2⁵² dimensions"
        )]
        let exact = self.head_size() as f64 * self.rotary_pct;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be in 0 … head size"
        )]
        let n_rotary = exact as usize;
        n_rotary
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |problem: String| Err(ConfigError::Contradiction(problem));
        let counts = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (key, count) in counts {
            // Far above any model, and low enough that products of two of them cannot overflow.
            if count == 0 || count > 1 << 24 {
                return wrong(format!("`{key}` is {count}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return wrong(format!(
                "`hidden_size` {} is no multiple of `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !(0.0..=1.0).contains(&self.rotary_pct) || !self.n_rotary().is_multiple_of(2) {
            return wrong(format!(
                "`rotary_pct` {} of {} dimensions is no even number of them",
                self.rotary_pct,
                self.head_size()
            ));
        }
        if !(self.rotary_emb_base > 0.0
            && self.rotary_emb_base.is_finite()
            && self.layer_norm_eps >= 0.0)
        {
            return wrong(format!(
                "`rotary_emb_base` is {}, `layer_norm_eps` is {}",
                self.rotary_emb_base, self.layer_norm_eps
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn published() -> Value {
        json!({
            "model_type": "gpt_neox", "hidden_act": "gelu", "vocab_size": 50304, "hidden_size": 512,
            "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048,
            "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "use_parallel_residual": true,
            "rotary_pct": 0.25, "rotary_emb_base": 10000, "torch_dtype": "float16"
        })
    }

    fn read(change: impl FnOnce(&mut Value)) -> Result<GptNeoxConfig, String> {
        let mut value = published();
        change(&mut value);
        GptNeoxConfig::from_json(value.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn both_dialects_say_the_same() {
        let old = read(|_| {}).unwrap();
        assert_eq!((old.head_size(), old.n_rotary()), (64, 16));
        let new = read(|value| {
            let keys = value.as_object_mut().unwrap();
            keys.remove("rotary_pct");
            keys.remove("rotary_emb_base");
            keys.insert("attention_bias".to_owned(), json!(true));
            let rope = json!({"rope_type": "default", "partial_rotary_factor": 0.25, "rope_theta": 10000.0});
            keys.insert("rope_parameters".to_owned(), rope);
        });
        assert_eq!(new.unwrap(), old);
    }

    #[test]
    fn what_is_no_such_model_is_refused() {
        let refused = |change: fn(&mut Value)| read(change).unwrap_err();
        assert_eq!(
            refused(|value| value["model_type"] = json!("llama")),
            "`model_type` is `llama`, only gpt_neox is supported"
        );
        assert_eq!(
            refused(|value| value["hidden_act"] = json!("gelu_new")),
            "`hidden_act` is `gelu_new`, only gelu is supported"
        );
        assert_eq!(
            refused(|value| value["num_attention_heads"] = json!(7)),
            "`hidden_size` 512 is no multiple of `num_attention_heads` 7"
        );
        assert_eq!(
            refused(|value| value["num_attention_heads"] = json!(0)),
            "`num_attention_heads` is 0"
        );
        assert_eq!(
            refused(|value| value["rotary_pct"] = json!(1.5)),
            "`rotary_pct` 1.5 of 64 dimensions is no even number of them"
        );
        assert_eq!(
            refused(|value| value["rotary_pct"] = json!(null)),
            "neither `rotary_pct` nor `rope_parameters.partial_rotary_factor` is given"
        );
        assert!(
            refused(|value| value["rope_scaling"] = json!({"type": "linear"}))
                .starts_with("`rope_scaling` is")
        );
        assert!(refused(|value| value["vocab_size"] = json!("many")).starts_with("invalid type"));
    }
}

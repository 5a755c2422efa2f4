//! Answers a reference case: `neox_maps CASE_DIR OUT_DIR` writes, under the names of the files in
//! `CASE_DIR/expected`, what our loader makes of the case.

#![expect(
    clippy::print_stderr,
    reason = "an example has no other way to say what is wrong"
)]

mod case;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use training_order::npy;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [case, out] = arguments.as_slice() else {
        eprintln!("usage: neox_maps CASE_DIR OUT_DIR");
        return ExitCode::from(2);
    };
    match run(case, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", case.display());
            ExitCode::FAILURE
        }
    }
}

fn run(case: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut expected = BTreeSet::new();
    for entry in fs::read_dir(case.join("expected"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        expected.extend(name.strip_suffix(".npy").map(str::to_owned));
    }
    let answers = case::answer(case, &expected)?;
    fs::create_dir_all(out)?;
    for (name, array) in answers {
        let mut file = BufWriter::new(File::create(out.join(format!("{name}.npy")))?);
        npy::write(&mut file, &array.shape, array.numbers)?;
        file.flush()?;
    }
    Ok(())
}

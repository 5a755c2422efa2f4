//! The verdicts as they lie: read by Polars, pandas and `DuckDB`, each by itself.

use crate::program::{RunFile, succeed, table, u16s};
use std::process::Command;

/// Prints, for each reader: rows, columns, and the sum of `n_prefix_matched` for each model and checkpoint; then what
/// `DuckDB` sees of the row groups' statistics.
const SCRIPT: &str = r#"
import sys
import duckdb, pandas, polars
folder = sys.argv[1]
columns = ["model", "checkpoint", "n_prefix_matched"]

frame = polars.scan_parquet(folder, hive_partitioning=True).collect()
print("polars", frame.height, sorted(frame.columns))
print(frame.group_by("model", "checkpoint").agg(polars.col("n_prefix_matched").cast(polars.Int64).sum()).sort("checkpoint").rows())

frame = pandas.read_parquet(folder, engine="pyarrow")
print("pandas", len(frame), sorted(frame.columns))
sums = frame.groupby(["model", "checkpoint"], observed=True)["n_prefix_matched"].sum()
print(sorted((model, int(checkpoint), int(n)) for (model, checkpoint), n in sums.items()))

parts = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
names = [row[0] for row in duckdb.sql(f"describe select * from {parts}").fetchall()]
n = duckdb.sql(f"select count(*) from {parts}").fetchall()[0][0]
print("duckdb", n, sorted(names))
print(duckdb.sql(f"select model, checkpoint, cast(sum(n_prefix_matched) as bigint) from {parts} group by all order by 2").fetchall())

groups = duckdb.sql(f"""select file_name, stats_min_value, stats_max_value, compression from parquet_metadata('{folder}/**/*.parquet')
    where path_in_schema = 'training_index' order by file_name, row_group_id""").fetchall()
ends = [(name.split("/")[-2], int(lo), int(hi)) for name, lo, hi, _ in groups]
print(all(a[2] < b[1] for a, b in zip(ends, ends[1:]) if a[0] == b[0]), {group[3] for group in groups}, len(groups))
"#;

#[test]
fn verdicts_are_read_as_they_lie() {
    let cache = std::env::var("XDG_CACHE_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cache")));
    let python = format!(
        "{}/memorization-against-time/venv/bin/python",
        cache.unwrap_or_default()
    );
    let modules = Command::new(&python)
        .args(["-c", "import polars, pandas, pyarrow, duckdb"])
        .output();
    if !modules.is_ok_and(|output| output.status.success()) {
        println!(
            "skipped: there is no `{python}` with polars, pandas, pyarrow and duckdb; `.ci/run` makes it"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile {
        part_size: 3000,
        ..RunFile::default()
    }
    .write(folder.path());
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let out = folder.path().join("out");
    let output = Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(out.join("verdicts"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found = String::from_utf8(output.stdout).unwrap();

    let memorization = table(&out, "memorization.parquet");
    let matched = u16s(&memorization, "n_prefix_matched");
    let sums = [600, 2400]
        .iter()
        .zip(matched.chunks(19_200))
        .map(|(checkpoint, some)| {
            let sum: u64 = some.iter().copied().map(u64::from).sum();
            format!("('mini', {checkpoint}, {sum})")
        });
    let sums = format!("[{}]", sums.collect::<Vec<_>>().join(", "));
    let columns = "['checkpoint', 'corpus', 'logp_suffix', 'margin', 'memorized', 'model', 'n_matched', 'n_prefix_matched', 'n_top1', 'near_tie', 'surprisal', 'training_index']";
    let lines =
        ["polars", "pandas", "duckdb"].map(|reader| format!("{reader} 38400 {columns}\n{sums}\n"));
    assert_eq!(found, lines.concat() + "True {'ZSTD'} 14\n");
}

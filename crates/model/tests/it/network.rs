//! The network against itself: several images in one call, pieces instead of the whole, rollback.

use candle_core::{DType, Device, Tensor};
use spectemp_model::ModelFiles;
use spectemp_model::config::Config;
use spectemp_model::kernels::Threads;
use spectemp_model::kv::Cache;
use spectemp_model::network::Network;
use spectemp_model::processor::{Patches, Processor};
use spectemp_model::text::{Rows, Span};
use spectemp_model::weights::Weights;

use crate::support::{copy, data, image, relative};

fn network(dtype: DType) -> Network {
    let files = ModelFiles::folder(data("untied/model"));
    let config = Config::parse(&files.require("config.json").expect("there")).expect("parses");
    let weights = Weights::open(&files).expect("opens");
    Network::load(&config, &weights, &Device::Cpu, dtype, &Threads::new(2)).expect("loads")
}

#[test]
fn several_images_in_one_call_are_as_one_by_one() {
    let network = network(DType::F32);
    let folder = copy(&data("untied/model"));
    let processor =
        Processor::open(&ModelFiles::folder(folder.path()), &network.config.vision).expect("opens");
    let sizes = [(56, 84), (140, 196), (112, 28), (224, 224), (28, 28), (252, 140)];
    let patches: Vec<Patches> = sizes
        .iter()
        .enumerate()
        .map(|(seed, &(width, height))| {
            processor.patches(&image(width, height, seed as u32)).expect("patches")
        })
        .collect();
    let grids: Vec<_> = patches.iter().map(|patches| patches.grid).collect();
    let stacked = Patches::stack(&patches, &Device::Cpu).expect("a tensor");
    let together = network.vision.forward(&stacked, &grids).expect("embeddings");
    let mut start = 0;
    for (patches, grid) in patches.into_iter().zip(grids) {
        let single = Patches::stack(&[patches], &Device::Cpu).expect("a tensor");
        let alone = network.vision.forward(&single, &[grid]).expect("embeddings");
        let tokens = alone.dims()[0];
        let part = together.narrow(0, start, tokens).expect("its part");
        let error = relative(&part, &alone);
        assert!(error < 1e-6, "{grid:?}: {error}");
        start += tokens;
    }
    assert_eq!(start, together.dims()[0]);
}

/// Logits of all of `ids[from..]` after what the cache holds.
pub(crate) fn run(network: &Network, ids: &[u32], from: usize, cache: &mut Cache) -> Tensor {
    let positions: Vec<_> = (from as u32..ids.len() as u32).map(|at| [at; 3]).collect();
    let x = network.text.embed(&ids[from..]).expect("embeddings");
    let rotary = network.text.rotary(&positions).expect("tables");
    let hidden = network.text.forward(&x, &rotary, cache, Rows::All).expect("it runs").expect("rows");
    network.text.logits(&hidden).expect("logits")
}

pub(crate) fn ids(count: u32, seed: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + seed * 101 + i * i) % 400).collect()
}

#[test]
fn pieces_give_what_the_whole_gives() {
    let network = network(DType::F32);
    let ids = ids(70, 1);
    let whole = run(&network, &ids, 0, &mut network.text.new_cache());
    for piece in [1, 7, 64] {
        let mut cache = network.text.new_cache();
        let mut rows = Vec::new();
        for start in (0..ids.len()).step_by(piece) {
            rows.push(run(&network, &ids[..ids.len().min(start + piece)], start, &mut cache));
        }
        let pieces = Tensor::cat(&rows, 0).expect("rows");
        let error = relative(&pieces, &whole);
        assert!(error < 1e-5, "pieces of {piece}: {error}");
        assert_eq!(cache.len(), ids.len());
    }
}

/// Decoding, prompts in chunks and verification in one call, with other sequences' caches between.
#[test]
fn a_batch_of_mixed_lengths_is_the_singles_bit_for_bit() {
    let network = network(DType::F32);
    let text = &network.text;
    let works = [
        (40, 1, Rows::Last),
        (0, 64, Rows::None),
        (259, 1, Rows::Last),
        (7, 5, Rows::All),
        (0, 3, Rows::Last),
        (12, 1, Rows::Last),
    ];
    let starts: Vec<Cache> = (0..)
        .zip(works)
        .map(|(seed, (before, ..))| {
            let mut cache = text.new_cache();
            if before > 0 {
                run(&network, &ids(before, seed), 0, &mut cache);
            }
            cache
        })
        .collect();
    let new: Vec<Vec<u32>> = (0..).zip(works).map(|(seed, (_, new, _))| ids(new, 50 + seed)).collect();
    let positions = |number: usize| {
        let from = starts[number].len() as u32;
        (from..from + new[number].len() as u32).map(|at| [at; 3]).collect::<Vec<_>>()
    };
    let mut caches = starts.clone();
    let mut spans: Vec<Span<'_>> = caches
        .iter_mut()
        .zip(works)
        .map(|(cache, (_, tokens, rows))| Span { cache, tokens: tokens as usize, rows, tree: None })
        .collect();
    let x = text.embed(&new.concat()).expect("embeddings");
    let all: Vec<_> = (0..works.len()).flat_map(positions).collect();
    let rotary = text.rotary(&all).expect("tables");
    let hidden = text.forward_spans(&x, &rotary, &mut spans).expect("it runs").expect("rows");
    let together = text.logits(&hidden).expect("logits");
    let mut first = 0;
    for (number, (_, _, rows)) in works.into_iter().enumerate() {
        let mut cache = starts[number].clone();
        let x = text.embed(&new[number]).expect("embeddings");
        let rotary = text.rotary(&positions(number)).expect("tables");
        let Some(hidden) = text.forward(&x, &rotary, &mut cache, rows).expect("it runs") else {
            assert_eq!(rows, Rows::None);
            continue;
        };
        let alone = text.logits(&hidden).expect("logits");
        let count = alone.dims()[0];
        let part = together.narrow(0, first, count).expect("its rows");
        assert_eq!(relative(&part, &alone), 0.0, "sequence {number}");
        first += count;
        // What the batch left in its cache is the same, too.
        let next = [run(&network, &[5], 0, &mut cache), run(&network, &[5], 0, &mut caches[number])];
        assert_eq!(relative(&next[0], &next[1]), 0.0, "after sequence {number}");
    }
    assert_eq!(first, together.dims()[0]);
}

#[test]
fn after_a_rollback_all_is_as_if_nothing_had_been() {
    let network = network(DType::F32);
    let (first, other) = (ids(40, 2), ids(60, 3));
    let mixed: Vec<u32> = first[..25].iter().chain(&other[..20]).copied().collect();
    let fresh = run(&network, &mixed, 0, &mut network.text.new_cache());
    let mut cache = network.text.new_cache();
    run(&network, &first, 0, &mut cache);
    let branch = cache.fork(25);
    cache.truncate(25);
    assert_eq!((cache.len(), branch.len()), (25, 25));
    let wanted = fresh.narrow(0, 25, 20).expect("rows");
    let rolled = run(&network, &mixed, 25, &mut cache);
    assert!(relative(&rolled, &wanted) < 1e-5);
    // The fork does not see what was appended to the cache that it shares memory with.
    let mut branch = branch;
    let again = run(&network, &mixed, 25, &mut branch);
    assert!(relative(&again, &wanted) < 1e-5);
}

#[test]
fn bf16_weights_are_close_to_f32() {
    let (full, half) = (network(DType::F32), network(DType::BF16));
    let ids = ids(30, 4);
    let wanted = run(&full, &ids, 0, &mut full.text.new_cache());
    let error = relative(&run(&half, &ids, 0, &mut half.text.new_cache()), &wanted);
    assert!(error > 0.0 && error < 0.1, "{error}");
}

#[test]
fn random_weights_load_and_are_written_for_a_peer() {
    let files = ModelFiles::folder(data("untied/model"));
    let config = Config::parse(&files.require("config.json").expect("there")).expect("parses");
    let weights = Weights::random(5);
    let network =
        Network::load(&config, &weights, &Device::Cpu, DType::F32, &Threads::new(1)).expect("loads");
    let folder = copy(&data("untied/model"));
    weights.write_random(&folder.path().join("model.safetensors"), |_| 1.0).expect("writes");
    let written = Weights::open(&ModelFiles::folder(folder.path())).expect("opens");
    let again = Network::load(&config, &written, &Device::Cpu, DType::F32, &Threads::new(1)).expect("loads");
    let ids = ids(9, 5);
    let (a, b) = (
        run(&network, &ids, 0, &mut network.text.new_cache()),
        run(&again, &ids, 0, &mut again.text.new_cache()),
    );
    assert_eq!(relative(&a, &b), 0.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let network = network(DType::F32);
    assert!(network.text.embed(&[423]).expect_err("no such token").to_string().contains("423"));
    let patches = Tensor::zeros((4, 100), DType::F32, &Device::Cpu).expect("a tensor");
    let grid = spectemp_model::rope::Grid { t: 1, h: 2, w: 2 };
    assert!(network.vision.forward(&patches, &[grid]).is_err());
    let odd = spectemp_model::rope::Grid { t: 1, h: 3, w: 2 };
    assert!(network.vision.forward(&patches, &[odd]).is_err());
}

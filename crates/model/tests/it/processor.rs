//! Sizes, pixels, patches and tokens against the reference.

use candle_core::{Device, Tensor};
use spectemp_engine::{PixelBudget, RgbImage, smart_resize};
use spectemp_model::config::Config;
use spectemp_model::processor::{Patches, Processor};
use spectemp_model::{ModelFiles, Tokenizer};

use crate::support::{copy, data, json, relative};

#[test]
fn sizes_are_those_of_the_reference() {
    let table = json(&data("smart_resize.json"));
    let rows = table.as_array().expect("a table");
    assert!(rows.len() > 100);
    for row in rows {
        let number = |i: usize| row[i].as_u64().expect("a number") as u32;
        let budget = PixelBudget { min_pixels: number(2), max_pixels: number(3), multiple: 28 };
        let got = smart_resize(number(1), number(0), budget).ok().map(|(width, height)| vec![height, width]);
        let wanted: Option<Vec<u32>> = serde_json::from_value(row[4].clone()).expect("a size or null");
        assert_eq!(got, wanted, "{row}");
    }
}

fn png(name: &str) -> RgbImage {
    let file = std::io::BufReader::new(std::fs::File::open(data(name)).expect("readable"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut buffer = vec![0; reader.output_buffer_size().expect("it fits")];
    let info = reader.next_frame(&mut buffer).expect("an image");
    assert_eq!(info.color_type, png::ColorType::Rgb);
    RgbImage { width: info.width, height: info.height, data: buffer.into() }
}

#[test]
fn resized_pixels_and_patches_are_those_of_the_reference() {
    let golden =
        candle_core::safetensors::load(data("processor.safetensors"), &Device::Cpu).expect("readable");
    let config =
        Config::parse(&std::fs::read(data("tied/model/config.json")).expect("readable")).expect("parses");
    let images = json(&data("processor.json"))["images"].as_array().expect("a list").clone();
    assert_eq!(images.len(), 3);
    for (number, meta) in images.iter().enumerate() {
        let folder = copy(&data("tied/model"));
        // The newer spelling of the bounds.
        let bounds =
            format!(r#"{{"size":{{"shortest_edge":{},"longest_edge":{}}}}}"#, meta["min"], meta["max"]);
        std::fs::write(folder.path().join("preprocessor_config.json"), bounds).expect("writable");
        let processor =
            Processor::open(&ModelFiles::folder(folder.path()), &config.vision).expect("it opens");
        let resized = processor.resize(&png(&format!("img{number}.png"))).expect("it scales");
        let wanted: Vec<u8> = golden[&format!("img{number}.resized_u8")]
            .flatten_all()
            .and_then(|t| t.to_vec1())
            .expect("pixels");
        assert_eq!(&resized.data[..], &wanted[..], "img{number} resized");
        let patches = processor.patches(&resized).expect("patches");
        let grid: Vec<i64> =
            golden[&format!("img{number}.grid_thw")].flatten_all().and_then(|t| t.to_vec1()).expect("a grid");
        assert_eq!([patches.grid.t as i64, patches.grid.h as i64, patches.grid.w as i64][..], grid[..]);
        let own = Patches::stack(&[patches], &Device::Cpu).expect("a tensor");
        let wanted: &Tensor = &golden[&format!("img{number}.patches_t0")];
        let error = relative(&own, wanted);
        assert!(error < 1e-6, "img{number}: {error}");
    }
}

#[test]
fn both_spellings_of_the_pixel_bounds_and_the_defaults_are_read() {
    let config =
        Config::parse(&std::fs::read(data("tied/model/config.json")).expect("readable")).expect("parses");
    let open = |text: Option<&str>| {
        let folder = copy(&data("tied/model"));
        if let Some(text) = text {
            std::fs::write(folder.path().join("preprocessor_config.json"), text).expect("writable");
        }
        Processor::open(&ModelFiles::folder(folder.path()), &config.vision)
    };
    let pixels =
        |text| open(text).map(|processor| (processor.pixels.min_pixels, processor.pixels.max_pixels));
    assert_eq!(pixels(None).expect("defaults"), (3136, 12_845_056));
    assert_eq!(pixels(Some(r#"{"min_pixels":784,"max_pixels":1568}"#)).expect("flat"), (784, 1568));
    let newer = r#"{"size":{"shortest_edge":784,"longest_edge":1568},"resample":3}"#;
    assert_eq!(pixels(Some(newer)).expect("nested"), (784, 1568));
    for (text, named) in [
        (r#"{"do_normalize":false}"#, "do_normalize"),
        (r#"{"resample":2}"#, "resample 2"),
        (r#"{"patch_size":16}"#, "patch_size 16"),
        (r#"{"min_pixels":9,"max_pixels":8}"#, "min_pixels 9"),
        (r#"{"image_std":[0,1,1]}"#, "image_std"),
        ("[", "preprocessor_config.json"),
    ] {
        let error = open(Some(text)).expect_err(text).to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn tokens_are_those_of_the_reference() {
    let tokenizer = Tokenizer::open(&ModelFiles::folder(data("tied/model"))).expect("it opens");
    let cases = json(&data("tokenizer_cases.json"));
    let cases = cases.as_array().expect("a list");
    assert!(cases.len() >= 7);
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
        assert_eq!(tokenizer.encode(text).expect("ids"), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).expect("text"), case["decoded"].as_str().expect("a text"));
    }
}

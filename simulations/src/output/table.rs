//! Columns in a Parquet file.

use std::io::{Read, Write};
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::column::reader::ColumnReaderImpl;
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnDescPtr, Type};

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// 64-bit integers.
    Integers(Vec<i64>),
    /// Numbers; some may be absent.
    Numbers(Vec<Option<f64>>),
    /// Texts.
    Texts(Vec<String>),
}

/// Rows in one group of a file.
const GROUP: usize = 1 << 20;

impl Column {
    /// Integers from anything that fits.
    pub fn integers<N: TryInto<i64>>(values: impl IntoIterator<Item = N>) -> Self {
        Self::Integers(values.into_iter().map(|value| value.try_into().unwrap_or(i64::MAX)).collect())
    }

    /// Numbers, all there.
    pub fn numbers(values: impl IntoIterator<Item = f64>) -> Self {
        Self::Numbers(values.into_iter().map(Some).collect())
    }

    fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Numbers(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    fn schema(&self, name: &str) -> Result<Arc<Type>, ParquetError> {
        let (physical, converted, repetition) = match self {
            Self::Integers(_) => (Physical::INT64, ConvertedType::NONE, Repetition::REQUIRED),
            Self::Numbers(_) => (Physical::DOUBLE, ConvertedType::NONE, Repetition::OPTIONAL),
            Self::Texts(_) => (Physical::BYTE_ARRAY, ConvertedType::UTF8, Repetition::REQUIRED),
        };
        let builder = Type::primitive_type_builder(name, physical);
        Ok(Arc::new(builder.with_converted_type(converted).with_repetition(repetition).build()?))
    }
}

/// Named columns of equal length, and notes about all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Columns, in order.
    pub columns: Vec<(String, Column)>,
    /// Keys and values that the file carries.
    pub notes: Vec<(String, String)>,
}

impl Table {
    /// One more column.
    #[must_use]
    pub fn with(mut self, name: &str, column: Column) -> Self {
        self.columns.push((name.to_owned(), column));
        self
    }

    /// A column by its name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, column)| column)
    }

    /// What is there of a column of numbers.
    #[must_use]
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        match self.column(name) {
            Some(Column::Numbers(values)) => values.iter().flatten().copied().collect(),
            Some(Column::Integers(values)) => values.iter().map(|&value| value as f64).collect(),
            _ => Vec::new(),
        }
    }

    /// Writes a Parquet file. The same table gives the same bytes.
    ///
    /// # Errors
    /// The output fails.
    pub fn write(&self, output: impl Write + Send) -> Result<(), ParquetError> {
        let fields =
            self.columns.iter().map(|(name, column)| column.schema(name)).collect::<Result<_, _>>()?;
        let schema = Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?);
        let notes = self.notes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        let properties = WriterProperties::builder()
            .set_created_by(format!("tombola-sim {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(notes));
        let mut file = SerializedFileWriter::new(output, schema, Arc::new(properties.build()))?;
        let rows = self.columns.first().map_or(0, |(_, column)| column.len());
        for from in (0..rows).step_by(GROUP) {
            let to = rows.min(from + GROUP);
            let mut group = file.next_row_group()?;
            for (_, column) in &self.columns {
                let Some(mut writer) = group.next_column()? else { break };
                match column {
                    Column::Integers(values) => {
                        write_all(writer.typed::<Int64Type>(), &values[from..to], None)?;
                    }
                    Column::Numbers(values) => {
                        let values = &values[from..to];
                        let there: Vec<i16> = values.iter().map(|value| value.is_some().into()).collect();
                        let values: Vec<f64> = values.iter().flatten().copied().collect();
                        write_all(writer.typed::<DoubleType>(), &values, Some(&there))?;
                    }
                    Column::Texts(values) => {
                        let texts: Vec<_> =
                            values[from..to].iter().map(|text| ByteArray::from(text.as_str())).collect();
                        write_all(writer.typed::<ByteArrayType>(), &texts, None)?;
                    }
                }
                writer.close()?;
            }
            group.close()?;
        }
        file.close().map(drop)
    }

    /// Reads what [`Table::write`] wrote.
    ///
    /// # Errors
    /// It is no such file.
    pub fn read(input: impl ChunkReader + Read + 'static) -> Result<Self, ParquetError> {
        // The library asserts some of what a damaged file may break.
        let read = std::panic::AssertUnwindSafe(|| Self::read_undamaged(input));
        std::panic::catch_unwind(read)
            .unwrap_or_else(|_| Err(ParquetError::General(String::from("the file is damaged"))))
    }

    fn read_undamaged(input: impl ChunkReader + Read + 'static) -> Result<Self, ParquetError> {
        let file = SerializedFileReader::new(input)?;
        let metadata = file.metadata();
        let notes = metadata.file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let notes = notes.into_iter().map(|note| (note.key, note.value.unwrap_or_default())).collect();
        let fields = metadata.file_metadata().schema_descr().columns();
        let column = |field: &ColumnDescPtr| {
            let column = match (field.physical_type(), field.max_def_level(), field.max_rep_level()) {
                (Physical::INT64, 0, 0) => Column::Integers(Vec::new()),
                (Physical::DOUBLE, 1, 0) => Column::Numbers(Vec::new()),
                (Physical::BYTE_ARRAY, 0, 0) => Column::Texts(Vec::new()),
                (other, ..) => {
                    let what = "expected required INT64 and BYTE_ARRAY, optional DOUBLE";
                    return Err(ParquetError::General(format!(
                        "column `{}` is not one that this program writes: {what}, found {other}",
                        field.name()
                    )));
                }
            };
            Ok((field.name().to_owned(), column))
        };
        let mut columns: Vec<(String, Column)> = fields.iter().map(column).collect::<Result<_, _>>()?;
        for group in 0..metadata.num_row_groups() {
            let group = file.get_row_group(group)?;
            let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            for (at, (_, column)) in columns.iter_mut().enumerate() {
                let reader = group.get_column_reader(at)?;
                match column {
                    Column::Integers(values) => {
                        read_all(
                            parquet::column::reader::get_typed_column_reader::<Int64Type>(reader),
                            rows,
                        )?
                        .0
                        .into_iter()
                        .for_each(|value| values.push(value));
                    }
                    Column::Numbers(values) => {
                        let reader = parquet::column::reader::get_typed_column_reader::<DoubleType>(reader);
                        let (found, there) = read_all(reader, rows)?;
                        let mut found = found.into_iter();
                        values.extend(there.iter().map(|&there| if there > 0 { found.next() } else { None }));
                    }
                    Column::Texts(values) => {
                        let reader =
                            parquet::column::reader::get_typed_column_reader::<ByteArrayType>(reader);
                        for text in read_all(reader, rows)?.0 {
                            values.push(text.as_utf8()?.to_owned());
                        }
                    }
                }
            }
        }
        Ok(Self { columns, notes })
    }
}

fn write_all<T: DataType>(
    writer: &mut ColumnWriterImpl<'_, T>,
    values: &[T::T],
    there: Option<&[i16]>,
) -> Result<(), ParquetError> {
    writer.write_batch(values, there, None).map(drop)
}

/// Values, and which rows have one.
fn read_all<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
) -> Result<(Vec<T::T>, Vec<i16>), ParquetError> {
    let (mut values, mut there) = (Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let (records, ..) = reader.read_records(rows - read, Some(&mut there), None, &mut values)?;
        if records == 0 {
            break;
        }
        read += records;
    }
    Ok((values, there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_same_table_gives_the_same_bytes() {
        let table = Table {
            notes: vec![("seed".into(), "7".into()), ("empty".into(), String::new())],
            ..Table::default()
        }
        .with("a", Column::integers([1_u64, 2, u64::MAX]))
        .with("b", Column::Numbers(vec![Some(0.5), None, Some(-1e300)]))
        .with("c", Column::Texts(vec!["x".into(), String::new(), "ä".into()]));
        let (mut first, mut second) = (tempfile::tempfile().unwrap(), Vec::new());
        table.write(&mut first).unwrap();
        table.write(&mut second).unwrap();
        assert_eq!(first.metadata().unwrap().len(), second.len() as u64);
        let found = Table::read(first).unwrap();
        let notes = found.notes.iter().filter(|(key, _)| key != "ARROW:schema").cloned().collect::<Vec<_>>();
        assert_eq!((found.columns.clone(), notes), (table.columns.clone(), table.notes.clone()));
        assert_eq!(found.numbers("b"), [0.5, -1e300]);
    }

    #[test]
    fn a_damaged_file_is_an_error_or_another_table_and_never_a_panic() {
        let table = Table::default()
            .with("a", Column::integers(0..500_u64))
            .with("b", Column::Numbers((0..500).map(|row| (row % 3 > 0).then_some(f64::from(row))).collect()))
            .with("c", Column::Texts((0..500).map(|row| row.to_string()).collect()));
        let mut whole = Vec::new();
        table.write(&mut whole).unwrap();
        let mut refused = 0;
        for bit in (0..whole.len() * 8).step_by(7) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&damaged).unwrap();
            refused += u32::from(Table::read(file).is_err());
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn columns_of_other_programs_are_refused() {
        for (physical, repetition) in [
            (Physical::FLOAT, Repetition::OPTIONAL),
            (Physical::INT32, Repetition::REQUIRED),
            (Physical::INT64, Repetition::OPTIONAL),
            (Physical::DOUBLE, Repetition::REPEATED),
        ] {
            let field = Type::primitive_type_builder("entropy_bits", physical).with_repetition(repetition);
            let schema = Type::group_type_builder("rows").with_fields(vec![Arc::new(field.build().unwrap())]);
            let mut file = tempfile::tempfile().unwrap();
            let writer =
                SerializedFileWriter::new(&mut file, Arc::new(schema.build().unwrap()), Arc::default());
            writer.unwrap().close().unwrap();
            let error = Table::read(file).unwrap_err().to_string();
            assert!(error.contains("column `entropy_bits` is not one that this program writes"), "{error}");
        }
    }

    #[test]
    fn a_table_without_rows_is_one() {
        let table = Table::default().with("a", Column::Integers(Vec::new()));
        let mut file = tempfile::tempfile().unwrap();
        table.write(&mut file).unwrap();
        assert_eq!(Table::read(file).unwrap().columns, table.columns);
    }
}

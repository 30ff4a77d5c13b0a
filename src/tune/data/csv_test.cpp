// Comma-separated values: RFC 4180's cases, and what breaks its rules.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/csv.h"

#include <gtest/gtest.h>

namespace hone::tune {
namespace {

using Fields = std::vector<std::string>;

std::vector<CsvRow> rows_of(std::string_view text, char separator = ',') {
  CsvReader reader(text, separator);
  std::vector<CsvRow> rows;
  for (CsvRow row;;) {
    const auto more = reader.next(row);
    EXPECT_TRUE(more.ok()) << more.error().text();
    if (!more || !*more) return rows;
    rows.push_back(row);
  }
}

TEST(Csv, ReadsFields) {
  const auto rows = rows_of("a,b,c\n1,,3\r\n\"x\",\"y,z\",\"\"\n");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].fields, (Fields{"a", "b", "c"}));
  EXPECT_EQ(rows[1].fields, (Fields{"1", "", "3"}));
  EXPECT_EQ(rows[2].fields, (Fields{"x", "y,z", ""}));
}

TEST(Csv, QuotesHoldQuotesAndLineEnds) {
  const auto rows = rows_of("\"say \"\"hi\"\"\",\"two\r\nlines\"\nnext,row");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].fields, (Fields{"say \"hi\"", "two\r\nlines"}));
  EXPECT_EQ(rows[0].line, 1u);
  EXPECT_EQ(rows[1].fields, (Fields{"next", "row"}));
  EXPECT_EQ(rows[1].line, 3u);  // the row before took two
}

TEST(Csv, SkipsEmptyLinesAndNeedsNoLastLineEnd) {
  const auto rows = rows_of("\n\na;b\r\n\r\nc;d", ';');
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].line, 3u);
  EXPECT_EQ(rows[1].line, 5u);
  EXPECT_EQ(rows[1].fields, (Fields{"c", "d"}));
  EXPECT_TRUE(rows_of("").empty());
  EXPECT_EQ(rows_of("a,").front().fields, (Fields{"a", ""}));
}

TEST(Csv, CarriageReturnInsideOfAFieldStays) {
  EXPECT_EQ(rows_of("a\rb,c\n").front().fields, (Fields{"a\rb", "c"}));
}

TEST(Csv, ReportsAQuoteThatIsNeverClosed) {
  CsvReader reader("a,b\nc,\"d\ne,f\n", ',');
  CsvRow row;
  ASSERT_TRUE(reader.next(row).ok());
  const auto broken = reader.next(row);
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(broken.error().where, "line 2");  // where it opens, not where the file ends
  EXPECT_NE(broken.error().found.find("field 2"), std::string::npos);
}

TEST(Csv, AProblemStaysInItsRow) {
  const auto rows = rows_of("5\" disk,x\n\"a\"b,y\nfine,z\n");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_NE(rows[0].problem.find("quote inside of field 1"), std::string::npos);
  EXPECT_NE(rows[1].problem.find("behind the closing quote of field 1"), std::string::npos);
  EXPECT_EQ(rows[2].problem, "");
  EXPECT_EQ(rows[2].fields, (Fields{"fine", "z"}));
}

}  // namespace
}  // namespace hone::tune

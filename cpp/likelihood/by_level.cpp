#include "likelihood/by_level.hpp"

namespace msem {

LevelBlocks by_level(const Matrix& whole, const LevelTangents& tangents) {
  LevelBlocks out(tangents.size());
  Index row = 0;
  for (std::size_t a = 0; a < tangents.size(); ++a) {
    Index col = row;
    for (std::size_t b = a; b < tangents.size(); ++b) {
      out(a, b) = whole.block(row, col, tangents[a].k(), tangents[b].k());
      col += tangents[b].k();
    }
    row += tangents[a].k();
  }
  return out;
}

std::vector<Matrix> columns_by_level(const Matrix& whole, const LevelTangents& tangents) {
  std::vector<Matrix> out;
  Index at = 0;
  for (const Tangents& t : tangents) {
    out.push_back(whole.middleCols(at, t.k()));
    at += t.k();
  }
  return out;
}

}  // namespace msem

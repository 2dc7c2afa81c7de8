// Matrices over the parameters of all levels, one level after the other.
#pragma once

#include "likelihood/likelihood.hpp"

namespace msem {

// A symmetric one by the levels of its rows and columns.
LevelBlocks by_level(const Matrix& whole, const LevelTangents& tangents);
// Its columns by level.
std::vector<Matrix> columns_by_level(const Matrix& whole, const LevelTangents& tangents);

}  // namespace msem

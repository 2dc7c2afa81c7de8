#include <Eigen/Eigenvalues>

#include "base/linalg.hpp"

namespace msem {

SymmetricEigen::SymmetricEigen(const Matrix& a) {
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(a);
  values = eigen.eigenvalues();
  vectors = eigen.eigenvectors();
  converged = eigen.info() == Eigen::Success;
}

}  // namespace msem
